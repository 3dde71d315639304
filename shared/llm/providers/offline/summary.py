"""Shortens a given text by its first sentences, for the offline provider. Pure."""

import re

from shared.llm.providers.offline.lexicon import SUMMARIZE

_ASKED = re.compile(SUMMARIZE, re.IGNORECASE)
_GIVEN = re.compile(r"^[^:\n]{0,120}(?::\s+|\n+)(.+)$", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
_SENTENCES = 3
_CHARACTERS = 600
_FEWEST_WORDS = 4


def summarize(text: str) -> str:
    """The first sentences of the facts in "Sum up: …"; empty when a text asks for no summary or gives no facts."""
    match = _ASKED.match(text.strip())
    if match is None:
        return ""
    given = _GIVEN.match(text.strip())
    facts = given.group(1) if given else text.strip()[match.end() :].lstrip(" ,.:-")
    if not given and len(facts.split()) < _FEWEST_WORDS:
        return ""
    sentences = _SENTENCE_END.split(" ".join(facts.split()))
    return " ".join(sentences[:_SENTENCES])[:_CHARACTERS].strip()
