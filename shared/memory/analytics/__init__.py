"""How memory grows, answers, ages and what it costs."""
