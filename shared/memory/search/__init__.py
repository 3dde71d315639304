"""Finding memories: words and meaning, fused."""
