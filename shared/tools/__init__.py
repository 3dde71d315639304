"""What agents can do: the catalogue, grants, and the one path on which every tool runs."""
