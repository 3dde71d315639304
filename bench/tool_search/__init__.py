"""What tool search finds, and how long it takes."""
