"""How long memories are kept: policies, pruning, and consolidation into summaries."""
