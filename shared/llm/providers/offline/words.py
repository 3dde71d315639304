"""Words for the offline provider: what a text speaks of, whatever the language and the grammatical form. Pure."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from shared.llm.providers.offline.lexicon import CONCEPTS, CYRILLIC_ENDINGS, RUSSIAN_WORDS, STOP_WORDS
from shared.llm.providers.offline.phrases import Language

WORD = re.compile(r"[^\W_]+(?:['’ʼ][^\W_]+)*")
_APOSTROPHE = re.compile(r"[’ʼ]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LETTER = re.compile(r"[^\W\d_]")
QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|„[^“”]*[“”]|`[^`]*`')
_CYRILLIC = re.compile(r"[а-яіїєґё]", re.IGNORECASE)
_LATIN_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", ""))
_SHORTEST_STEM = 3
_SHARED_BEGINNING = 5

_EXACT = {entry: concept for concept, entries in CONCEPTS.items() for entry in entries.split() if entry.isascii()}
_BEGINNINGS = [
    (entry, concept) for concept, entries in CONCEPTS.items() for entry in entries.split() if not entry.isascii()
]


def words(text: str) -> list[str]:
    """Every word, in lower case; names such as ``project_create`` and ``listProjects`` come apart."""
    return [match.lower() for match in WORD.findall(_CAMEL.sub(" ", _APOSTROPHE.sub("'", text)))]


def tokens(text: str) -> list[str]:
    """The meanings in a text, in order and without stop words: a concept's name, or a word's stem."""
    return [token for word in words(text) if (token := token_of(word))]


def overlap(wanted: Iterable[str], given: Iterable[str]) -> set[str]:
    """The wanted tokens that are among the given ones, allowing for different ends of long words."""
    offered = set(given)
    beginnings = {token[:_SHARED_BEGINNING] for token in offered if len(token) > _SHARED_BEGINNING}
    return {token for token in wanted if token in offered or token[:_SHARED_BEGINNING] in beginnings}


def language_of(text: str, before: Sequence[str] = ()) -> Language:
    """The language most words of a text are in, quotations aside.

    Ukrainian and Russian are told apart by their own letters or words. Where a text does not show its language, the
    first of the texts ``before`` it that does decides; Cyrillic without any sign counts as Ukrainian.
    """
    found = (_shown_language(one) for one in (text, *before))
    return next((language for language in found if language), "uk" if _is_cyrillic(text) else "en")


def _shown_language(text: str) -> Language | None:
    unquoted = QUOTED.sub(" ", text)
    own = unquoted if _LETTER.search(unquoted) else text
    if not _LETTER.search(own):
        return None
    if not _is_cyrillic(own):
        return "en"
    if re.search(r"[іїєґ]", own, re.IGNORECASE):
        return "uk"
    if re.search(r"[ыэъё]", own, re.IGNORECASE) or RUSSIAN_WORDS & set(words(own)):
        return "ru"
    return None


def _is_cyrillic(text: str) -> bool:
    """Whether most words are Cyrillic; the first decides between equals."""
    kinds = [bool(_CYRILLIC.search(word)) for word in words(text) if _LETTER.search(word)]
    return bool(kinds) and (2 * sum(kinds) > len(kinds) or (2 * sum(kinds) == len(kinds) and kinds[0]))


@lru_cache(maxsize=4096)
def token_of(word: str) -> str:
    """The meaning of one word in lower case; empty for a stop word."""
    if word.isascii():
        stem = _latin_stem(word)
        concept = _EXACT.get(word) or _EXACT.get(stem)
    else:
        stem = _cyrillic_stem(word)
        concept = next((name for beginning, name in _BEGINNINGS if word.startswith(beginning)), None)
    if concept:
        return concept
    return "" if word in STOP_WORDS else stem


def _latin_stem(word: str) -> str:
    for ending, instead in _LATIN_ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)] + instead
    return word


def _cyrillic_stem(word: str) -> str:
    for ending in CYRILLIC_ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: -len(ending)]
    return word
