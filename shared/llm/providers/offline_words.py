"""Words for the offline provider: what a text speaks of, whatever the language and the grammatical form. Pure."""

import re
from collections.abc import Iterable
from functools import lru_cache

from shared.llm.providers.offline_lexicon import CONCEPTS, CYRILLIC_ENDINGS, RUSSIAN_WORDS, STOP_WORDS
from shared.llm.providers.offline_phrases import Language

_WORD = re.compile(r"[^\W_]+(?:['’ʼ][^\W_]+)*")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
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
    return [match.lower() for match in _WORD.findall(_CAMEL.sub(" ", text))]


def tokens(text: str) -> list[str]:
    """The meanings in a text, in order and without stop words: a concept's name, or a word's stem."""
    return [token for word in words(text) if (token := _token(word))]


def overlap(wanted: Iterable[str], given: Iterable[str]) -> set[str]:
    """The wanted tokens that are among the given ones, allowing for different ends of long words."""
    offered = set(given)
    beginnings = {token[:_SHARED_BEGINNING] for token in offered if len(token) > _SHARED_BEGINNING}
    return {token for token in wanted if token in offered or token[:_SHARED_BEGINNING] in beginnings}


def language_of(text: str) -> Language:
    """Ukrainian or Russian by their own letters; Cyrillic without either counts as Ukrainian."""
    if not _CYRILLIC.search(text):
        return "en"
    if re.search(r"[іїєґ]", text, re.IGNORECASE):
        return "uk"
    is_russian = re.search(r"[ыэъё]", text, re.IGNORECASE) or RUSSIAN_WORDS & set(words(text))
    return "ru" if is_russian else "uk"


@lru_cache(maxsize=4096)
def _token(word: str) -> str:
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
