"""What is to be taken out of prompts and answers: plain data, and the small pattern language of configured patterns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["off", "redact", "refuse"]

MAX_PATTERNS = 20
MAX_PATTERN_REACH = 64
"""The most characters that one configured pattern can match; a stream holds so much text back."""

_MAX_REPEAT = 32
_MAX_BRANCHES = 8
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TOKEN = re.compile(
    r"(?P<one>\\[dDwWsS]|\\[^\w\s]|\.|[^\\\[\](){}|*+?^$.]|\[\^?(?:\\[dDwWsS]|\\[^\w\s]|[^\\\[\]])+\])"
    r"(?P<times>\?|\*|\+|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})?"
    r"|(?P<zero>\\b)|(?P<open>\(\?:)|(?P<close>\))|(?P<or>\|)"
)


@dataclass(frozen=True, slots=True)
class NamedPattern:
    """A configured pattern. ``name`` is shown in the marker that takes a match's place."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SanitizePolicy:
    """What happens to secrets (``mode``), in prompts and with ``answers`` in answers too.

    ``fail_closed``: a fault in the checks refuses the call instead of letting it pass unchecked. Lengths are in
    characters and hold in every mode.
    """

    mode: Mode = "redact"
    answers: bool = False
    detect_iban: bool = False
    patterns: tuple[NamedPattern, ...] = ()
    fail_closed: bool = True
    max_message_characters: int = 1_000_000
    max_total_characters: int = 4_000_000

    def within(self, platform: "SanitizePolicy") -> "SanitizePolicy":
        """This policy with the platform's patterns, and its lengths, beside its own."""
        own = {one.name for one in self.patterns}
        return replace(
            self,
            detect_iban=self.detect_iban or platform.detect_iban,
            patterns=(*(one for one in platform.patterns if one.name not in own), *self.patterns),
            max_message_characters=min(self.max_message_characters, platform.max_message_characters),
            max_total_characters=min(self.max_total_characters, platform.max_total_characters),
        )


def check_patterns(patterns: Sequence[NamedPattern]) -> None:
    """Raises ValueError that names the pattern at fault."""
    if len(patterns) > MAX_PATTERNS:
        raise ValueError(f"at most {MAX_PATTERNS} patterns are taken")
    for one in patterns:
        if not _NAME.fullmatch(one.name):
            raise ValueError(f"pattern name {one.name!r} must be lower-case letters, digits and _ (at most 32)")
        compile_pattern(one)


def compile_pattern(one: NamedPattern) -> re.Pattern[str]:
    """A regular expression that takes linear time on any text. Raises ValueError.

    The language: literals, classes, ``.``, ``\\d \\w \\s \\b``, ``(?:a|b)``, and ``? * + {m,n}`` after one character or
    class. Repeats take all that they can, at most 32, and never give back; a group's first alternative that fits is
    kept. So nothing is tried twice at a place, and a match has at most 64 characters.
    """
    translated, reach, at = [], 0, 0
    while at < len(one.pattern):
        token = _TOKEN.match(one.pattern, at)
        if token is None:
            raise ValueError(f"pattern {one.name}: {one.pattern[at:]!r} is not in the language of patterns")
        translated.append(_translate(one, token))
        reach += _most(token)
        at = token.end()
    if not 0 < reach <= MAX_PATTERN_REACH:
        raise ValueError(f"pattern {one.name}: it must match 1 to {MAX_PATTERN_REACH} characters, not up to {reach}")
    if one.pattern.count("|") >= _MAX_BRANCHES:
        raise ValueError(f"pattern {one.name}: at most {_MAX_BRANCHES} alternatives are taken")
    return _compile(one, "".join(translated))


def _compile(one: NamedPattern, expression: str) -> re.Pattern[str]:
    try:
        made = re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"pattern {one.name}: {error}") from None
    if made.match(""):
        raise ValueError(f"pattern {one.name}: it matches the empty text")
    return made


def _translate(one: NamedPattern, token: re.Match[str]) -> str:
    if token["open"]:
        return "(?>"
    if not token["one"]:
        return token[0]
    low, high = _times(token["times"])
    if low > high or high > _MAX_REPEAT:
        raise ValueError(f"pattern {one.name}: {token[0]!r} must repeat at most {_MAX_REPEAT} times")
    return token["one"] if token["times"] is None else f"{token['one']}{{{low},{high}}}+"


def _most(token: re.Match[str]) -> int:
    return _times(token["times"])[1] if token["one"] else 0


def _times(quantifier: str | None) -> tuple[int, int]:
    if quantifier is None:
        return 1, 1
    if quantifier in "?*+":
        return {"?": (0, 1), "*": (0, _MAX_REPEAT), "+": (1, _MAX_REPEAT)}[quantifier]
    low, comma, high = quantifier[1:-1].partition(",")
    return int(low), int(high or (_MAX_REPEAT if comma else low))
