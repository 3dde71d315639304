"""One module per wire dialect: pure functions between OpenAI's chat types and what a provider speaks."""
