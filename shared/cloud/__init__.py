"""The outside world: queues and workflows through boto3, the outbox before them, and the contract that functions serve."""
