"""Prefixed, time-sortable identifiers (``sess_0198…``)."""

import os
import time
import uuid

_SEPARATOR, _ESCAPE = "\x1f", "\x1b"


def uuid7() -> uuid.UUID:
    """A version 7 UUID: 48 bits of Unix milliseconds, then random bits (RFC 9562 §5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def new_id(prefix: str) -> str:
    """``new_id("flow")`` → ``flow_0198c1…`` (prefix, underscore, 32 hex digits)."""
    return f"{prefix}_{uuid7().hex}"


def derived_id(prefix: str, *parts: str) -> str:
    """The same parts always give the same id, so that a repeated delivery names the same row; others give another."""
    return f"{prefix}_{uuid.uuid5(uuid.NAMESPACE_OID, _SEPARATOR.join(map(_escaped, parts))).hex}"


def _escaped(part: str) -> str:
    """The part without the separator, which callers may have in their own ids."""
    return part.replace(_ESCAPE, f"{_ESCAPE}0").replace(_SEPARATOR, f"{_ESCAPE}1")
