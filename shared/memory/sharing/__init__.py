"""Teams, and memory shared between agents and teams."""
