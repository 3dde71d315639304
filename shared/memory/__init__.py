"""What agents remember: stored at once, embedded in the background, found by meaning; each agent apart."""
