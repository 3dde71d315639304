"""Texts into vectors: the port, the models behind it, and the spaces that keep each model's vectors apart."""
