"""What a call may cost, what it did cost, and who may still spend: prices, admission, limits, the ledger."""
