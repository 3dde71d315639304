"""The HTTP API: OpenAI's surface on ``/v1``, the platform's own beside it."""
