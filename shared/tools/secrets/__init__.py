"""What tools prove themselves with: sealed in the database, bound to hosts, put in at the last moment, never shown."""
