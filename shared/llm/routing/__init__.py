"""Which routes may serve a call, in which order, and when one is tried again. Mostly pure."""
