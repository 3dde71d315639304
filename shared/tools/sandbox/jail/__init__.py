"""The inside of the jail: a fork server and what its children do before they run a tool.

These modules run under ``python -I -S`` and import nothing but the standard library and each other.
"""
