"""Which request an idempotency key stands for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The client's key within its API key, and a fingerprint of what it asked."""

    microdao_id: str
    key_id: str
    idempotency_key: str
    fingerprint: bytes
