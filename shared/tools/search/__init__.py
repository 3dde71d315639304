"""Which of an agent's tools fit its task: texts into words and vectors, the index of them, the ranking."""
