"""Finds the things that arguments are made of in a sentence: names, places, numbers, what follows a colon. Pure."""

import re
from collections.abc import Iterable

from shared.llm.providers.offline.lexicon import ACTIONS, CONCEPTS, CREATING, NAMED
from shared.llm.providers.offline.words import tokens

QUOTED = re.compile(
    r'"([^"]+)"|“([^”]+)”|«([^»]+)»|„([^“”]+)[“”]|`([^`]+)`|(?<!\w)\'([^\']+)\'(?!\w)|(?<!\w)‘([^’]+)’(?!\w)'
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
URL = re.compile(r"https?://[^\s<>\"']+")
DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?\b")
IDENTIFIER = re.compile(r"\b[a-z]+_[0-9a-f]{8,}\b")

_LARGEST_NUMBER = 2.0**63

_ANY_QUOTED = r'"[^"]+"|“[^”]+”|«[^»]+»|„[^“”]+[“”]|`[^`]+`|\'[^\']+\''
_PROPER = rf"(?:{_ANY_QUOTED}|[^\s,.;:!?\"«“]+(?:\s+(?:[A-ZА-ЯІЇЄҐЁ0-9][^\s,;:!?]*))*)"
_TO_THE_END = r"(?:(?!\s(?:with (?:a |the )?\w+ |due |by |з описом|с описанием))[^,;\n])+?"
_NAMED = re.compile(
    rf"\b{NAMED}\s*:?\s+({_ANY_QUOTED}|{_TO_THE_END})(?=[,;\n]|[.!?](?:\s|$)|\s(?:with|due|by|з|с)\s|$)", re.IGNORECASE
)
_PLEASE = re.compile(r",?\s+(?:please|instead|будь ласка|натомість|пожалуйста|вместо этого)$", re.IGNORECASE)
_AFTER_COLON = re.compile(r":\s+(.+)$", re.DOTALL)
_PLACE = re.compile(r"\b(?:in|at|near|у|в|во)\s+((?:[A-ZА-ЯІЇЄҐЁ][\w'’.-]*)(?:,?\s+[A-ZА-ЯІЇЄҐЁ][\w'’.-]*)*)")
_RECIPIENT = re.compile(r"(?:\b(?:to|for|для)\s+|@)((?:agent|user|channel):\S+|[A-ZА-ЯІЇЄҐЁ][\w'’-]*)")
_ABOUT = re.compile(r"\b(?:for|about|on|regarding|про|щодо|о|об|по)\s+(.+)$", re.IGNORECASE | re.DOTALL)
_INTO = r"(?:in|into|to|under|for|within|у|в|до|для|во|к|на)"
_IN_IT = re.compile(
    rf"\s+{_INTO}\s+(?:it|this|that|them|нього|ньому|нім|неї|ній|него|нём|нем|неё|ней)\b(?:\s+\w+$)?", re.IGNORECASE
)
_THE = r"(?:(?:the|my|our|this|цьому|этот|этом)\s+)?"
_NEXT = rf"(?:to|called|named|titled|with|as|щоб|чтобы|(?:з|с|під|под) наз\w+|a|the|{CREATING})"
_CAPITAL = r"[A-ZА-ЯІЇЄҐЁ0-9]"
_AFTER_QUOTE = re.compile(
    rf"(?<=[\"”»`'’])\s+(?i:(?:in|into|to|under|у|в|до|к)\s+{_THE})({_ANY_QUOTED}|{_CAPITAL}[^,.;:!?\n]*)"
)
_FIRST = re.compile(rf"^\W*(?i:(?:for|in|to|для|у|в|до|к)\s+{_THE})({_ANY_QUOTED}|{_CAPITAL}[^,.;:!?\n]*)[,:]\s+")
_OF = re.compile(
    rf"\s(?i:(?:in|of|for|from|under|у|в|до|з|із|по|из|для)\s+{_THE})({_ANY_QUOTED}|{_CAPITAL}[^,.;:!?\n]*)[.?!\s]*$"
)


def quoted(text: str) -> list[str]:
    """Every quoted text."""
    return [next(group for group in match.groups() if group).strip() for match in QUOTED.finditer(text)]


def named(text: str) -> str | None:
    """What follows "called", "named", "з назвою", "под названием"…; None when no such word is there."""
    match = _NAMED.search(text)
    return unquoted(match.group(1)) if match else None


def after_colon(text: str) -> str:
    """What follows the first colon; empty when there is none."""
    match = _AFTER_COLON.search(text)
    return unquoted(match.group(1)) if match else ""


def recipient(text: str) -> str:
    """Whom something is sent or given to: an address such as ``user:olena``, or a name; empty when there is none."""
    match = _RECIPIENT.search(text)
    return match.group(1).rstrip(".,:;!?") if match else ""


def place(text: str) -> str:
    """A capitalised name after "in" or "at"; empty when there is none."""
    match = _PLACE.search(text)
    return match.group(1).rstrip(".") if match else ""


def topic(text: str) -> str:
    """What a search is about: the words after "for" or "about", or all of it."""
    match = _ABOUT.search(text)
    return unquoted((match.group(1) if match else text).rstrip("?.! "))


def container(text: str, kind: str) -> tuple[str, str]:
    """The named thing of a kind that something goes into, and the text without it.

    ``("add a task in project Alpha", "project")`` → ``("Alpha", "add a task")``
    """
    noun = _noun(kind)
    end = rf"[,;:!?\n]|\.(?:\s|$)|\s+{_NEXT}\s|\s+{_noun('task')}\s|\s*$"
    name = rf"({_ANY_QUOTED}|[^\s,.;:!?\"«“][^,;:!?\n]*?)(?={end})"
    before = re.compile(rf"[,\s]*\b(?i:{_INTO}\s+{_THE}{noun}\s+(?:(?:called|named)\s+)?){name}")
    after = re.compile(rf"[,\s]*\b(?i:{_INTO}\s+{_THE})({_PROPER})\s+(?i:{noun})")
    for pattern in (before, after):
        if match := pattern.search(text):
            return unquoted(match.group(1)), (text[: match.start()] + text[match.end() :]).strip()
    return "", text


def bare_container(text: str, *, is_listing: bool) -> tuple[str, str]:
    """Like ``container`` where no noun says what it is: at the beginning, after a quoted title, or at the end of a
    question for a list.

    ``add a task "Call" to Solar Roof`` → ``("Solar Roof", 'add a task "Call"')``
    """
    match = _FIRST.search(text) or (_OF if is_listing else _AFTER_QUOTE).search(text)
    name = unquoted(match.group(1)) if match else ""
    if not match or not set(tokens(name)) - ACTIONS - {"task", "project"}:
        return "", text
    return name, (text[: match.start()] + text[match.end() :]).strip()


def known_container(text: str, names: Iterable[str]) -> tuple[str, str]:
    """The first of some known names that the text says something goes into, and the text without it."""
    for name in names:
        match = re.search(rf"[,\s]+{_INTO}\s+{_THE}[\"«“„`']?{re.escape(name)}[\"»”`']?(?!\w)", text, re.IGNORECASE)
        if match:
            return name, (text[: match.start()] + text[match.end() :]).strip()
    return "", text


def without_reference(text: str) -> tuple[bool, str]:
    """Whether something goes "in it" or "to this", and the text without those words."""
    match = _IN_IT.search(text)
    return (True, text[: match.start()] + text[match.end() :]) if match else (False, text)


def after_noun(text: str, kinds: frozenset[str]) -> str:
    """The words after what is made: "create project Alpha" → "Alpha", "add a task to buy milk" → "buy milk"."""
    for kind in sorted(kinds):
        match = re.search(
            rf"\b{_noun(kind)}\b\s*[:—–-]?\s*(?:(?:to|for|щоб|чтобы)\s+)?(.+)$", text, re.IGNORECASE | re.DOTALL
        )
        if match:
            found = re.split(r"[;\n]|[.!?](?:\s|$)|\s(?:with|due)\s", match.group(1))[0]
            is_name = (tokens(found) or NUMBER.search(found)) and not re.fullmatch(NAMED, found.strip(), re.IGNORECASE)
            return unquoted(found) if is_name else ""
    return ""


def numbers(text: str) -> list[int | float]:
    """Every number, in order."""
    return [number for found in NUMBER.findall(text) if (number := _number(found)) is not None]


def labelled(text: str, label: str) -> str:
    """What follows a label: ``description: …``, ``with the description "…"``, ``description is …``."""
    word = re.escape(label.replace("_", " "))
    stop = rf"({_ANY_QUOTED}|[^,;\n]+?)(?=[,;\n]|\.(?:\s|$)|\s(?:and|with)\s|$)"
    match = re.search(rf"\b{word}(?:\s*[:=]\s*|\s+is\s+|\s+(?=[\"«“„`']))" + stop, text, re.IGNORECASE)
    return unquoted(match.group(1)) if match else ""


def number_beside(text: str, label: str) -> int | float | None:
    """The number that stands next to a label's word: ``limit 5``, ``3 days``."""
    word = re.escape(label.replace("_", " ").rstrip("s"))
    match = re.search(
        rf"\b{word}s?\s*(?:is|of|to|[:=])?\s*(-?\d+(?:\.\d+)?)\b|(-?\d+(?:\.\d+)?)\s+{word}", text, re.IGNORECASE
    )
    if not match:
        return None
    return _number(match.group(1) or match.group(2))


def _number(text: str) -> int | float | None:
    """The number that digits write; None for one that JSON readers do not take (RFC 8259 section 6)."""
    if abs(float(text)) >= _LARGEST_NUMBER:
        return None
    return float(text) if "." in text else int(text)


def unquoted(text: str) -> str:
    """A text without the quotes, the politeness or the punctuation around it; empty when nothing else is there."""
    tidy = _PLEASE.sub("", text.strip().rstrip(".,;:!?").strip())
    match = QUOTED.fullmatch(tidy)
    inner = next(group for group in match.groups() if group).strip() if match else tidy
    return inner if re.search(r"[^\W_]|[^\x00-\x7f«»“”„]", inner) else ""


def _noun(kind: str) -> str:
    stems = CONCEPTS.get(kind, kind).split()
    return "(?:" + "|".join(re.escape(stem) + r"\w*" for stem in stems) + ")"
