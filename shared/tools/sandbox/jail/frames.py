"""Messages between a tool and its host: four bytes of length, then that much JSON."""

import json
import os
from typing import Any

HEADER_BYTES = 4


def write_frame(descriptor: int, body: object) -> None:
    """Send one message; blocks. Raises ValueError or TypeError for what is no JSON."""
    data = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    rest = memoryview(len(data).to_bytes(HEADER_BYTES, "big") + data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_frame(descriptor: int) -> Any:
    """Receive one message; blocks. Raises EOFError when the host is gone."""
    size = int.from_bytes(_read_exactly(descriptor, HEADER_BYTES), "big")
    return json.loads(_read_exactly(descriptor, size))


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the host is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
