"""Finding memories: words and meaning, their surroundings, and one score out of all of it."""
