"""Shapes answers, keeps them for the same question, and gives them again for the same request."""
