"""Answers from the memories in the prompt, for the offline provider. Pure."""

import re
from collections.abc import Sequence

from shared.llm.providers.offline_lexicon import ACTIONS
from shared.llm.providers.offline_phrases import PHRASES
from shared.llm.providers.offline_reading import is_question
from shared.llm.providers.offline_words import overlap, tokens

_SENTENCE = re.compile(
    r"(?<=[.!?])\s+|\s+(?=(?:user|agent|assistant|answer|question|користувач|пользователь|агент)\s*:)", re.IGNORECASE
)
_SPEAKER = re.compile(r"^(?:user|agent|assistant|answer|question|користувач|пользователь|агент)\s*:\s*", re.IGNORECASE)
_MARKS = tuple(
    phrases[key] for phrases in PHRASES.values() for key in ("who", "mark", "no_memory", "unclear", "noted", "ask")
)
_OWN_OPENINGS = tuple(phrases["memory"].split("{")[0] for phrases in PHRASES.values())
_MOST = 3
_RECALLING = frozenset(
    {"remember", "recall", "say", "said", "tell", "told", "mention", "ask", "before", "early", "last", "know"}
)


def recall(question: Sequence[str], memories: Sequence[str], *, is_about_the_past: bool) -> tuple[str, float]:
    """The sentences of the memories that speak of the question's words, and how much of the question they cover (0..1).

    Questions are no answers, and neither are this provider's own words about itself. A question about the past that
    names nothing is answered with the first memories.
    """
    wanted = {token for token in question if token not in ACTIONS | _RECALLING}
    sentences = [sentence for memory in memories for sentence in _statements(memory)]
    if not wanted:
        return (" ".join(sentences[:_MOST]), 1.0) if is_about_the_past else ("", 0.0)
    scored = [(len(overlap(wanted, tokens(sentence))), -place) for place, sentence in enumerate(sentences)]
    best = max(scored, default=(0, 0))[0]
    if not best:
        return "", 0.0
    chosen = dict.fromkeys(sentences[-place] for shared, place in scored if shared == best)
    return " ".join(list(chosen)[:_MOST]), best / len(wanted)


def _statements(memory: str) -> list[str]:
    for mark in (*_MARKS, *_OWN_OPENINGS):
        memory = memory.replace(mark, " ")
    parts = [_SPEAKER.sub("", part.strip()) for part in _SENTENCE.split(memory)]
    return [part for part in parts if part and not part.endswith("?") and not is_question(part)]
