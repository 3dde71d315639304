"""The router: durable flows of steps. ``engine`` decides, ``flows`` acts, the state machine waits and calls back."""
