"""Takes secrets out of what is shown or kept: by their value, in every form in which services send one back. Pure."""

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus


class Redactor:
    """Replaces secrets (values by name) with their names."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._names = {form: name for name, value in values.items() for form in _forms(value)}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """The text with each secret replaced by ``[secret name]``."""
        if self._pattern is None or not self._is_in(text):
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found[0]]}]", text)

    def value(self, value: Any) -> Any:
        """The same for JSON: its strings, field names and numbers. Nested at most as deep as ``wire.depth`` lets in."""
        # One search through the whole, which is most often all: it is many times cheaper than a look at each part.
        return self._replaced(value) if self._is_in(json.dumps(value, ensure_ascii=False)) else value

    def _is_in(self, text: str) -> bool:
        return any(form in text for form in self._names)

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self._replaced(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._replaced(one) for one in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown = self.text(str(value))
            return value if shown == str(value) else shown
        return value


def _forms(value: str) -> set[str]:
    """The value itself, escaped for JSON, URLs and HTML, in hexadecimal, and in base64 wherever it stands in a text."""
    raw = value.encode()
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    lower_case = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in quoted}
    escaped = {
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        html.escape(value),
        repr(value)[1:-1],
    }
    return {value, *quoted, *lower_case, *escaped, raw.hex(), raw.hex().upper(), *_base64_forms(raw)}


def _base64_forms(raw: bytes) -> Iterator[str]:
    """The characters that depend on ``raw`` alone, for each of the three ways it can lie in groups of three."""
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw).decode()
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        yield text[first:last]
        yield text[first:last].translate(str.maketrans("+/", "-_"))
