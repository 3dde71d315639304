"""What was spent: events written with the effect they measure, metered once, reported."""
