"""``{{secret}}`` and ``{{secrets.name}}`` in a tool's config. Pure functions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

NAME_PATTERN = r"[a-z0-9][a-z0-9_.-]{0,63}"
_PLACEHOLDER = re.compile(r"\{\{\s*(?:secret|secrets\.(" + NAME_PATTERN + r"))\s*\}\}")
_ANY_BRACES = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_OWN = ""  # stands for the secret that ``secret_ref`` names


def secret_names(template: Any, secret_ref: str | None) -> set[str]:
    """The names of the secrets that the strings of a config need."""
    found = {match[1] or _OWN for text in _strings(template) for match in _PLACEHOLDER.finditer(text)}
    return {name or str(secret_ref) for name in found}


def template_fault(template: Any, secret_ref: str | None) -> str | None:
    """What is wrong with the placeholders of a config; None if nothing is."""
    for text in _strings(template):
        for braces in _ANY_BRACES.findall(text):
            if not _PLACEHOLDER.fullmatch(braces):
                return f"{braces} must be {{{{secret}}}} or {{{{secrets.name}}}}"
        if secret_ref is None and any(match[1] is None for match in _PLACEHOLDER.finditer(text)):
            return "{{secret}} needs a secret_ref that names the secret"
    return None


def render(template: Any, values: Mapping[str, str], secret_ref: str | None) -> Any:
    """The template with secrets in their places. What a secret holds is not looked at for placeholders."""
    if isinstance(template, str):
        return _PLACEHOLDER.sub(lambda found: values[found[1] or str(secret_ref)], template)
    if isinstance(template, dict):
        return {name: render(one, values, secret_ref) for name, one in template.items()}
    if isinstance(template, list):
        return [render(one, values, secret_ref) for one in template]
    return template


def _strings(template: Any) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, dict):
        for one in template.values():
            yield from _strings(one)
    elif isinstance(template, list):
        for one in template:
            yield from _strings(one)
