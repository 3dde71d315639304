"""What the functions share: domain packages above, the outside world below (see docs/architecture.md)."""
