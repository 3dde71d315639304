"""Shares calls out between variants of a prompt."""
