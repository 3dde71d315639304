"""Answers from the memories in the prompt, for the offline provider. Pure."""

import re
from collections.abc import Sequence

from shared.llm.providers.offline.intent import is_question
from shared.llm.providers.offline.lexicon import ACTIONS, FIRST_PERSON, PERSONAL, RECALLING
from shared.llm.providers.offline.phrases import patterns
from shared.llm.providers.offline.words import overlap, tokens

_SENTENCE = re.compile(
    r"(?<=[.!?])\s+|\s+(?=(?:user|agent|assistant|answer|question|користувач|пользователь|агент)\s*:)", re.IGNORECASE
)
_PERSONAL = re.compile(PERSONAL, re.IGNORECASE)
_FIRST_PERSON = re.compile(FIRST_PERSON, re.IGNORECASE)
_SPEAKER = re.compile(r"^(?:user|agent|assistant|answer|question|користувач|пользователь|агент)\s*:\s*", re.IGNORECASE)
_ABOUT_ITSELF = patterns(
    "who", "mark", "no_memory", "unclear", "noted", "told", "ask", "need", "confirm", "not_wanted", "dropped", "cannot",
    "unfit", "empty", "no_tools", "memory",
)  # fmt: skip
_MOST = 3


def recall(
    question: Sequence[str], memories: Sequence[str], *, is_about_the_past: bool, most: int = _MOST
) -> tuple[str, float]:
    """The sentences of the memories that speak of the question's words, and how much of the question they cover (0..1).

    Questions are no answers, and neither are this provider's own words about itself. A question about the past that
    names nothing is answered with what the user told of themselves, or else with the first memories.
    """
    wanted = {token for token in question if token not in ACTIONS | RECALLING}
    sentences = [sentence for memory in memories for sentence in _statements(memory)]
    if not wanted:
        found = list(filter(tells_of_the_user, sentences)) or sentences
        return (_joined(found, most), 1.0) if is_about_the_past else ("", 0.0)
    scored = [(len(overlap(wanted, tokens(sentence))), -place) for place, sentence in enumerate(sentences)]
    best = max(scored, default=(0, 0))[0]
    if not best:
        return "", 0.0
    return _joined([sentences[-place] for shared, place in scored if shared == best], most), best / len(wanted)


def last_said(question: Sequence[str], said: Sequence[str]) -> str:
    """The user's previous message, for a question such as "What did I just say?" that names nothing else."""
    return said[0] if said and "say" in question and not set(question) - ACTIONS - RECALLING else ""


def is_personal(text: str) -> bool:
    """Whether a question is about what is the user's own."""
    return _PERSONAL.search(text) is not None


def tells_of_the_user(text: str) -> bool:
    """Whether a statement is about the user."""
    return _FIRST_PERSON.search(text) is not None


def _joined(sentences: Sequence[str], most: int) -> str:
    """Some sentences, each but the last with a full stop."""
    chosen = list(dict.fromkeys(sentences))[:most]
    return " ".join([*(one if one[-1] in ".!?…" else f"{one}." for one in chosen[:-1]), *chosen[-1:]])


def _statements(memory: str) -> list[str]:
    for pattern in _ABOUT_ITSELF:
        memory = pattern.sub(" ", memory)
    parts = [_SPEAKER.sub("", part.strip()) for part in _SENTENCE.split(memory)]
    return [part for part in parts if part and not part.endswith("?") and not is_question(part)]
