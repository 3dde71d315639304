"""The outside world: queues and workflows through boto3, the outbox before them, the contract of functions."""
