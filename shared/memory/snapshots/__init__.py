"""Copies of an agent's memory: saved, restored, exported and imported as a sealed file."""
