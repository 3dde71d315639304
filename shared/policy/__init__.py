"""Who is calling (keys, roles) and what they may do (the decision point)."""
