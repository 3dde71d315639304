"""The platform's sanitising policy, read from ``infra/config/sanitize.yaml``."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from shared.errors import SettingError
from shared.llm.safety.policy import Mode, NamedPattern, SanitizePolicy, check_patterns

_SWITCHES: Final = ("answers", "detect_iban", "fail_closed")
_LENGTHS: Final = ("max_message_characters", "max_total_characters")


def load_sanitize_policy(path: Path) -> SanitizePolicy:
    """Read and check the file. Raises SettingError that names the file and the entry at fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingError(f"DAARION_SANITIZE: cannot read {path}: {error}") from None
    try:
        return parse_sanitize_policy(document)
    except ValueError as error:
        raise SettingError(f"{path}: {error}") from None


def parse_sanitize_policy(document: Any) -> SanitizePolicy:
    """The policy in a parsed document. Raises ValueError that names the entry at fault."""
    if not isinstance(document, dict):
        raise ValueError("it must map settings to values")
    if unknown := sorted(set(document) - {field.name for field in fields(SanitizePolicy)}):
        raise ValueError(f"unknown settings: {', '.join(map(str, unknown))}")
    for name, value in document.items():
        _check_value(name, value)
    patterns = tuple(_pattern(index, entry) for index, entry in enumerate(document.get("patterns") or []))
    check_patterns(patterns)
    return SanitizePolicy(**{**document, "patterns": patterns})


def _check_value(name: str, value: Any) -> None:
    if name == "mode" and value not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}; it is {value!r}")
    if name in _SWITCHES and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false; it is {value!r}")
    if name in _LENGTHS and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be a whole number above 0; it is {value!r}")


def _pattern(index: int, entry: Any) -> NamedPattern:
    if not isinstance(entry, dict) or set(entry) != {"name", "pattern"}:
        raise ValueError(f"patterns.{index} must have name and pattern")
    return NamedPattern(str(entry["name"]), str(entry["pattern"]))
