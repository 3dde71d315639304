"""What a clause wants: to have something done, to have it left undone, to talk about doing it, or to tell. Pure."""

import re
from typing import Literal

from shared.llm.providers.offline import lexicon
from shared.llm.providers.offline.lexicon import ACTIONS, EFFECTS
from shared.llm.providers.offline.words import QUOTED, WORD, token_of, words

Mood = Literal["command", "negated", "asked", "told"]

_LEAD = re.compile(rf"[^\w\"“«„`']*(?:(?:(?:{lexicon.LEAD_IN})\b[\s,!.:]+)|(?:[^\W\d_]{{2,20}},\s+))*", re.IGNORECASE)
_ASKING = re.compile(rf"\b(?:{lexicon.ASKING})\b", re.IGNORECASE)
_NEGATION = re.compile(lexicon.NEGATION, re.IGNORECASE)
_DELIBERATION = re.compile(lexicon.DELIBERATION, re.IGNORECASE)
_QUESTION = re.compile(lexicon.QUESTION, re.IGNORECASE)
_NOT_IMPERATIVE = re.compile(lexicon.NOT_IMPERATIVE)
_CARRIER = re.compile(lexicon.CARRIERS)


def read_mood(clause: str) -> Mood:
    """Whether a clause commands a change, forbids it, wonders about it, or tells of it.

    A command begins with its verb, after politeness alone; everything else changes nothing.
    """
    lead = lead_in(clause)
    if _is_imperative(clause[len(lead) :]):
        is_wondering = clause.rstrip().endswith("?") and not _ASKING.search(lead)
        return "asked" if is_wondering else "command"
    if is_negated(clause):
        return "negated"
    is_asked = clause.rstrip().endswith("?") or is_deliberation(clause)
    return "asked" if is_asked else "told"


def lead_in(clause: str) -> str:
    """The polite beginning of a clause, before its verb: ``Could you please ``."""
    match = _LEAD.match(clause)
    return match.group() if match else ""


def action_of(clause: str) -> str:
    """The first action a clause names, such as ``create``; ``list`` for a question; empty when there is none."""
    return "list" if is_question(clause) else _first_action(_DELIBERATION.sub("", clause.strip()))[0]


def is_question(text: str) -> bool:
    """Whether a text asks for something to be told rather than done."""
    return _QUESTION.search(text.strip()) is not None and not is_deliberation(text)


def is_negated(clause: str) -> bool:
    """Whether "not" or its like stands before what a clause would have done, or "no" right after it."""
    begin = _first_action(clause)[1]
    following = clause[begin:].partition(" ")[2]
    found = _NEGATION.search(QUOTED.sub('"', clause[:begin])) or _NEGATION.match(following)
    return found is not None and not is_question(clause)


def is_deliberation(clause: str) -> bool:
    """Whether a clause only thinks about doing: "should I …", "if …"."""
    return _DELIBERATION.search(clause.strip()) is not None


def is_cancelling(text: str) -> bool:
    """Whether a text only calls off: "Never mind, cancel"."""
    said = set(words(QUOTED.sub('"', text)))
    return bool(said & lexicon.CANCEL) and said <= lexicon.CANCEL | lexicon.CANCEL_FILLERS


def is_agreeing(text: str) -> bool:
    """Whether a text only says yes: "Yes, please create it"."""
    said = set(words(text))
    return bool(said & lexicon.AGREEMENT) and all(token_of(word) in EFFECTS for word in said - lexicon.AGREEMENT)


def _is_imperative(rest: str) -> bool:
    match = WORD.match(rest)
    if match is None or _NEGATION.match(rest[match.end() :].lstrip()):
        return False
    verb = match.group().lower()
    if _CARRIER.match(verb):
        return _first_action(rest)[0] in EFFECTS
    return token_of(verb) in EFFECTS and not _NOT_IMPERATIVE.search(verb)


def _first_action(clause: str) -> tuple[str, int]:
    """The first action and where it stands; the clause's end when there is none."""
    for match in WORD.finditer(clause):
        if (token := token_of(match.group().lower())) in ACTIONS:
            return token, match.start()
    return "", len(clause)
