"""Agents: blueprints, sessions and the loop that answers."""
