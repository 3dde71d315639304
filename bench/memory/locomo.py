"""LoCoMo's conversations and how retrieval from them is scored.

Each turn is an item, ``Speaker: text [image: caption]``; a question is asked verbatim, inside its own conversation.
Evidence is the turns whose ids the question's ``evidence`` holds; questions without any such turn are left out. R@k is
the share of a question's evidence turns in the first k, hit@k whether any is there, session hit@k whether any item of
an evidence session is; figures are means over questions.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from shared.settings import ROOT

_EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
ADVERSARIAL = 5
"""The category that is left out of all figures but those "of all categories"."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said; ``id`` is like ``D3:11``."""

    id: str
    session: int
    text: str
    said_at: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the ids of the turns that answer it."""

    text: str
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One long conversation."""

    name: str
    turns: list[Turn]
    questions: list[Question]


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and the turns found for it, best first."""

    question: Question
    found: Sequence[str]

    def recall(self, k: int) -> float:
        """The share of the evidence in the first k."""
        return len(self.question.evidence & set(self.found[:k])) / len(self.question.evidence)

    def hit(self, k: int) -> float:
        """Whether any evidence is in the first k."""
        return float(not self.question.evidence.isdisjoint(self.found[:k]))

    def reciprocal_rank(self) -> float:
        """One over the place of the first evidence found."""
        return next((1 / place for place, one in enumerate(self.found, 1) if one in self.question.evidence), 0.0)

    def session_hit(self, k: int) -> float:
        """Whether any item of an evidence session is in the first k."""
        sessions = {one.partition(":")[0] for one in self.question.evidence}
        return float(not sessions.isdisjoint(one.partition(":")[0] for one in self.found[:k]))


def data_file(name: str) -> Path | None:
    """A file of the development data: in ``DAARION_BENCH_DATA``, or in ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("DAARION_BENCH_DATA") or ROOT.parent / "shared" / "data")
    return folder / name if (folder / name).exists() else None


def read_conversations(file: Path) -> list[Conversation]:
    """Every conversation of the file."""
    return [_conversation(one) for one in json.loads(file.read_text(encoding="utf-8"))]


def figures(answers: Sequence[Answer]) -> dict[str, float]:
    """Percentages, named as in the tables."""
    asked = [answer for answer in answers if answer.question.category != ADVERSARIAL]
    return {
        "R@5": _percent(answer.recall(5) for answer in asked),
        "R@10": _percent(answer.recall(10) for answer in asked),
        "hit@10": _percent(answer.hit(10) for answer in asked),
        "MRR": _percent(answer.reciprocal_rank() for answer in asked),
        "R@10, all categories": _percent(answer.recall(10) for answer in answers),
        "session hit@10, all categories": _percent(answer.session_hit(10) for answer in answers),
    }


def _percent(values: object) -> float:
    return round(100 * mean(values), 1)  # type: ignore[call-overload]


def _conversation(document: dict) -> Conversation:  # type: ignore[type-arg]
    turns = [
        Turn(turn["dia_id"], session["session"], _text(turn), _moment(session["date"]))
        for session in document["sessions"]
        for turn in session["turns"]
    ]
    known = {turn.id for turn in turns}
    questions = [_question(question, known) for question in document["questions"]]
    return Conversation(document["sample_id"], turns, [question for question in questions if question.evidence])


def _question(document: dict, known: set[str]) -> Question:  # type: ignore[type-arg]
    ids = {f"D{session}:{turn}" for session, turn in _EVIDENCE.findall(" ".join(map(str, document["evidence"])))}
    return Question(document["question"], document["category"], frozenset(ids & known))


def _text(turn: dict) -> str:  # type: ignore[type-arg]
    caption = f" [image: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
    return f"{turn['speaker']}: {turn['text']}{caption}"


def _moment(date: str) -> datetime:
    return datetime.strptime(date, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
