"""What the functions share: domain packages above, the outside world below. Layers are listed in docs/architecture.md."""
