"""The one path on which every tool runs: admitted, written down, run, its outcome stored once."""
