"""Takes secrets out of a streamed answer: text goes out only once nothing that follows can make a secret of it.

Nearly every secret is one word, so what is held back is the word under way, and before it the few openings that a
secret of several words has (``Bearer``, ``password =``, groups of card digits, a key block). Configured patterns may
have blanks in them: with those, the last 128 characters are held back as well.
"""

import re
from collections import Counter
from typing import Any, Final

from shared.llm.safety.patterns import ASSIGNED, PEM_HEAD, PEM_REACH, WORD_BEGIN, Span
from shared.llm.safety.policy import MAX_PATTERN_REACH, SanitizePolicy
from shared.llm.safety.sanitize import change_leaves, on_fault, report
from shared.llm.safety.text import HIDDEN, JOINERS, find_secrets, redactor, replace_spans, strip_hidden

_WORD: Final = "".join(map(chr, range(33, 127)))
_LONGEST_WORD: Final = 8192
_LONGEST_OPENING: Final = 256
_MOST_NESTED: Final = 4
"""Openings that can stand in one another: a key block in a word behind ``Bearer``."""
_CONTEXT: Final = 8
"""Characters before the held text that expressions look back at."""

_PEM_END = "-----END "
_UNSTRIPPED = re.compile(f"[!-~][{HIDDEN}{JOINERS}]*\\Z")
_OPENING = re.compile(
    rf"(?:{WORD_BEGIN}(?:bearer\s{{1,4}}|{ASSIGNED}[\"']?\s{{0,4}}(?:[=:]\s{{0,4}})?"
    r"|[2-6][0-9]{3}(?:[ -][0-9]{4,6}){0,3} )|(?<![A-Z0-9])(?-i:[A-Z]{2}[0-9]{2}[A-Z0-9 ]{0,40})"
    r"|-----BEGIN[A-Z0-9 ]{0,160})\Z",
    re.IGNORECASE | re.ASCII,
)


class StreamSanitizer:
    """One text that comes in pieces. What it gives out is, put together, what the whole text would have become.

    Raises InvalidRequest in mode ``refuse`` before anything of a secret goes out, and Internal when the checks fail and
    the policy is fail-closed.
    """

    def __init__(self, policy: SanitizePolicy) -> None:
        self._policy = policy
        self._raw = ""
        self._text = ""
        self._done = 0  # what of the text has gone out
        self._patience = 0

    def feed(self, text: str) -> str:
        """Take a piece; what may go out now, perhaps nothing."""
        raw = self._raw + text
        kept = _UNSTRIPPED.search(raw)
        self._raw = raw[kept.start() :] if kept else ""
        # What is kept begins with a character that stays, and decides on those before it.
        self._text += strip_hidden(raw[: kept.start() + 1])[:-1] if kept else strip_hidden(raw)
        if len(self._text) < self._patience:
            return ""
        cut = self._decided()
        return self._release(cut) if cut > self._done else ""

    def flush(self) -> str:
        """The rest. The text ends here."""
        self._text += strip_hidden(self._raw)
        self._raw = ""
        return self._release(len(self._text), is_end=True)

    def _decided(self) -> int:
        """Up to where no secret can be under way, but for one that has been found already."""
        cut = self._open_block()
        if self._policy.patterns:
            cut = min(cut, len(self._text) - MAX_PATTERN_REACH - 1)
        cut = self._word_begin(max(cut, self._done))
        for _ in range(_MOST_NESTED):
            opening = _OPENING.search(self._text, max(self._done, cut - _LONGEST_OPENING), cut)
            if opening is None:
                break
            cut = self._word_begin(opening.start())
            if cut == opening.start():
                break
        return cut

    def _word_begin(self, end: int) -> int:
        """Where the word that ends at ``end`` begins. Of one that is too long to be a secret's begin, the last part."""
        start = max(self._done, end - _LONGEST_WORD)
        begin = start + len(self._text[start:end].rstrip(_WORD))
        is_long = begin == start > self._done
        return begin if not is_long or begin - self._done > _LONGEST_WORD // 4 else self._done

    def _open_block(self) -> int:
        """Where a key block begins whose end has not come."""
        for head in PEM_HEAD.finditer(self._text, self._done):
            end = self._text.find("-----", head.end())
            if end < 0 and len(self._text) - head.end() <= PEM_REACH + len(_PEM_END):
                return head.start()
            closing = self._text[end : end + 120] if end >= 0 else ""
            if closing and (_PEM_END.startswith(closing) or _is_open_end(closing)):
                return head.start()
        return len(self._text)

    def _release(self, cut: int, *, is_end: bool = False) -> str:
        spans = self._find()
        if not is_end:
            cut = next((span.opens for span in spans if span.opens < cut <= span.end), cut)
            self._patience = len(self._text) * 5 // 4 if cut <= self._done else 0
        out = [span for span in spans if span.end <= cut]
        report("answer", Counter(span.kind for span in out), self._policy)
        released = replace_spans(self._text, out, self._done, cut)
        start = max(0, cut - _CONTEXT)
        self._text, self._done = self._text[start:], cut - start
        return released

    def _find(self) -> list[Span]:
        try:
            return find_secrets(self._text, self._policy, self._done)
        except Exception as error:
            on_fault(error, self._policy)
            return []


def _is_open_end(closing: str) -> bool:
    return closing.startswith(_PEM_END) and "-----" not in closing[len(_PEM_END) :] and len(closing) < 100


class DeltaSanitizer:
    """The ``delta`` objects of one streamed answer: content, reasoning, refusal and tool arguments, each a text.

    Held text that is left at the end comes from ``flush``, to be sent before the finish reason.
    """

    def __init__(self, policy: SanitizePolicy) -> None:
        self._policy = policy
        self._texts: dict[str, StreamSanitizer] = {}
        self._calls: dict[int, StreamSanitizer] = {}

    def feed(self, delta: dict[str, Any]) -> dict[str, Any]:
        """The delta as it may go out; empty when all of it is held back."""
        out: dict[str, Any] = {}
        for name, value in delta.items():
            if name == "tool_calls":
                value = [part for call in value or [] if (part := self._feed_call(call))]
            elif name != "role" and isinstance(value, str):
                value = self._texts.setdefault(name, StreamSanitizer(self._policy)).feed(value)
            elif name != "role":
                value = self._change(value)
            if value or not delta[name]:
                out[name] = value
        return out

    def flush(self) -> list[dict[str, Any]]:
        """Deltas with what was held back, in the order in which their texts began."""
        rest: list[dict[str, Any]] = [{name: text} for name, one in self._texts.items() if (text := one.flush())]
        for index, one in self._calls.items():
            if text := one.flush():
                rest.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        return rest

    def _feed_call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = dict(call.get("function") or {})
        one = self._calls.setdefault(call["index"], StreamSanitizer(self._policy))
        arguments = one.feed(function.get("arguments") or "")
        if not arguments and not function.get("name") and not call.get("id"):
            return {}
        return {**call, "function": {**function, "arguments": arguments}}

    def _change(self, value: Any) -> Any:
        found: Counter[str] = Counter()
        try:
            changed = change_leaves(value, redactor(self._policy, found))
        except Exception as error:
            on_fault(error, self._policy)
            return value
        report("answer", found, self._policy)
        return changed
