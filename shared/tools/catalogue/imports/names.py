"""From what others call a tool or a parameter to what we and a model can. Pure functions."""

import hashlib
import re
from typing import Final

MAX_NAME: Final = 64
"""What a model's function name may have."""
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_.-]+")
_MAX_PARAMETER: Final = 64


def tool_name(prefix: str, said: str) -> str:
    """The catalogue's name: the prefix and what is said, of letters, digits and ``_.-``, at most 64 characters."""
    name = _NOT_IN_NAMES.sub("_", said).strip("_.-") or "tool"
    return _cut(prefix + name if (prefix + name)[0].isalpha() else f"{prefix}t_{name}", said)


def parameter_name(said: str) -> str:
    """The name of a parameter that every model takes."""
    return _NOT_IN_NAMES.sub("_", said).strip("_")[:_MAX_PARAMETER] or "value"


def _cut(name: str, said: str) -> str:
    """Long names end in a hash, so that two that begin alike stay two."""
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}_{hashlib.sha256(said.encode()).hexdigest()[:8]}"
