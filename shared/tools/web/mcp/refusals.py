"""Whether a server refuses a request for its session's sake, and so has done nothing. Pure functions.

Sources: modelcontextprotocol.io/specification/2025-11-25/basic/transports (session management: 404 for one that has
ended); modelcontextprotocol/python-sdk#1004, mastra-ai/mastra#15160 (many servers answer 400 after a restart).
"""

from typing import Any

import orjson

_OF_SESSIONS = ("session", "initializ", "protocol version")
_UNSUPPORTED_VERSION = -32022


def refuses_session(status: int, body: bytes, request_id: Any) -> bool:
    """Whether an answer means that the session is over, or its protocol version not spoken any more.

    404 always does. 400 does if it is no answer to this very request and speaks of sessions: then the server has not
    come to read what was asked.
    """
    if status != 400:
        return status == 404
    said = _object(body)
    error = said.get("error")
    if isinstance(error, dict) and error.get("code") == _UNSUPPORTED_VERSION:
        return True
    return said.get("id") != request_id and speaks_of_session(body.decode("utf-8", errors="replace"))


def speaks_of_session(text: str) -> bool:
    """Whether an error may be about the session and not about the call."""
    lower = text.lower()
    return any(word in lower for word in _OF_SESSIONS)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
