"""Runs a call: its attempts at one route after another, within its time, settled at the end."""
