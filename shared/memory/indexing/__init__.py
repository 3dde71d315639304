"""Makes items findable: embeddings and postings, made anew for another model or lexicon, indexes for large scopes."""
