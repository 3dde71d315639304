"""Measurements: each script prints a table and writes JSON under bench/results/ (not kept by git)."""
