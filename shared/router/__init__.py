"""The router: durable flows of steps. ``engine`` decides, ``flows`` acts, the state machine only waits and calls back."""
