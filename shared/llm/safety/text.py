"""What sanitising does to one text. Pure; what it finds is counted by kind and never named."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from shared.llm.safety.patterns import Span, detectors
from shared.llm.safety.policy import SanitizePolicy

# Control characters (ISO 6429 C0 and C1, but not tab and line ends); characters that show nothing and can hide text or
# turn its order around: soft hyphen, zero-width space and joiners of words, bidirectional embeddings, overrides and
# isolates, annotation marks, tags and variation selectors that can carry a message ("ASCII smuggling").
HIDDEN: Final = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff"
)
JOINERS: Final = "\u200c\u200d"
"""They shape emoji and several scripts, so they go only where they part two ASCII characters, which shows nothing."""

_HIDDEN = re.compile(f"[{HIDDEN}]+")
_IDLE_JOINERS = re.compile(f"(?<=[!-~])[{JOINERS}]+(?=[!-~])")

# The tokens by which models tell roles apart, and Anthropic's older prompts.
_ROLE_TOKEN = re.compile(
    r"[<\[](?:(?<=<)(?=\|[A-Za-z0-9_]{1,40}\|>|\uff5c|<?/?SYS>>|(?:start|end)_of_turn>)"
    r"|(?<=\[)(?=/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\]))"
)
_ROLE_TURN = re.compile(r"\n\r?\n(?:Human|Assistant)(?=:)")


def strip_hidden(text: str) -> str:
    """The text without control characters and without those that only hide something."""
    if text.isascii() and text.isprintable():
        return text
    shown = _HIDDEN.sub("", text)
    return _IDLE_JOINERS.sub("", shown) if any(joiner in shown for joiner in JOINERS) else shown


def split_role_marks(text: str) -> str:
    """The text with a space in each token that a model could take for the begin of another role's turn."""
    if "\nHuman:" in text or "\nAssistant:" in text:
        text = _ROLE_TURN.sub(r"\g<0> ", text)
    return _ROLE_TOKEN.sub(r"\g<0> ", text)


def find_secrets(text: str, policy: SanitizePolicy, start: int = 0) -> list[Span]:
    """Where the secrets are, in order. Those that overlap are one, of the first's kind."""
    lowered = text.lower()
    found = [span for one in detectors(policy) for span in one.spans(text, lowered, start)]
    merged: list[Span] = []
    for span in sorted(found, key=lambda span: span.begin):
        if merged and span.begin < merged[-1].end:
            last = merged[-1]
            merged[-1] = Span(last.begin, max(span.end, last.end), last.kind, min(span.opens, last.opens))
        else:
            merged.append(span)
    return merged


def replace_spans(text: str, spans: list[Span], begin: int, end: int) -> str:
    """``text[begin:end]`` with ``[redacted:kind]`` in each span's place."""
    parts = []
    for span in spans:
        parts += [text[begin : span.begin], f"[redacted:{span.kind}]"]
        begin = span.end
    return "".join([*parts, text[begin:end]])


def redactor(policy: SanitizePolicy, found: Counter[str]) -> Callable[[str], str]:
    """A function that takes hidden characters and secrets out of a text and counts the secrets in ``found``."""

    def redact(text: str) -> str:
        clean = strip_hidden(text)
        spans = find_secrets(clean, policy)
        found.update(span.kind for span in spans)
        return replace_spans(clean, spans, 0, len(clean)) if spans else clean

    return redact
