"""Whether an executor can work with a tool's config, and whether somebody put a secret into it. Pure functions."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from shared.errors import InvalidRequest

ConfigCheck = Callable[[Mapping[str, Any], Mapping[str, Any]], None]
"""Gets a tool's config and the schema of its arguments. Raises InvalidRequest or ValueError, saying what is wrong."""

_TEMPLATE: Final = "{{"
_HINT: Final = "store the secret, name it in secret_ref and write {{secret}} in its place"
_SECRET_FIELD: Final = re.compile(
    r"(?i)(?:.*[_-])?(?:authorization|proxy-authorization|api[_-]?key|apikey|token|secret|password|passwd|cookie|"
    r"access[_-]?key|private[_-]?key|credentials?|auth|signature|sig)"
)
_CREDENTIAL: Final = re.compile(r"(?i)\s*(?:bearer|basic|token|apikey)\s+\S{6,}")
_REFERENCES: Final = ("secret_ref", "in")


class ConfigChecks:
    """The check of each executor. One without a check takes any config."""

    def __init__(self, checks: Mapping[str, ConfigCheck]) -> None:
        self._checks = dict(checks)

    def check(self, executor: str, config: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Raises InvalidRequest for a config that the executor cannot work with."""
        check = self._checks.get(executor)
        if check is None:
            return
        try:
            check(config, parameters)
        except ValueError as error:
            raise InvalidRequest(f"config of {executor}: {error}", param="config") from None


def literal_secret(config: Any) -> str | None:
    """Where a config holds something that looks like a secret itself, and what to do; None if it does not."""
    for leaf in _leaves(config):
        if _TEMPLATE not in leaf.text and _is_secret(leaf):
            return f"{leaf.path} looks like a secret: {_HINT}"
    return None


class _Leaf(NamedTuple):
    path: str
    field: str
    text: str


def _leaves(value: Any, path: str = "", field: str = "") -> Iterator[_Leaf]:
    """Every text with the name of its field. What refers to a secret, and what names parameters, is not one."""
    if isinstance(value, str):
        yield _Leaf(path, field, value)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name not in _REFERENCES:
                yield from _leaves(one, f"{path}.{name}".lstrip("."), name)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _leaves(one, f"{path}.{index}", field)


def _is_secret(leaf: _Leaf) -> bool:
    from shared.llm.safety.policy import SanitizePolicy  # dozens of expressions, which a call never needs
    from shared.llm.safety.text import find_secrets

    if _SECRET_FIELD.fullmatch(leaf.field) and leaf.text.strip():
        return True
    if _CREDENTIAL.match(leaf.text) and leaf.field != "code":
        return True
    return _has_credentials(leaf.text) or bool(find_secrets(leaf.text, SanitizePolicy()))


def _has_credentials(text: str) -> bool:
    """Whether an address carries a password or a key."""
    if not text.startswith(("http://", "https://")):
        return False
    try:
        parts = urlsplit(text)
        return parts.password is not None or any(
            _SECRET_FIELD.fullmatch(name) and value and "{" not in value for name, value in parse_qsl(parts.query)
        )
    except ValueError:
        return False
