"""Questions in Ukrainian and Russian, each with the one memory that answers it, written for this project."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = {"uk": "Ukrainian", "ru": "Russian"}


@dataclass(frozen=True, slots=True)
class Pair:
    """``kind`` says what question and memory share: an inflected word, or a meaning only."""

    id: str
    kind: str
    query: str
    memory: str


def read_pairs(language: str) -> list[Pair]:
    """All pairs of a language (a key of ``LANGUAGES``)."""
    file = Path(__file__).parent / "data" / f"pairs_{language}.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Pair(line["id"], line["kind"], line["query"], line["memory"]) for line in lines]


def hit(pair: Pair, found: Sequence[str], k: int) -> bool:
    """Whether the pair's memory is among the first k texts found."""
    return pair.memory in found[:k]


def figures(answers: Sequence[tuple[Pair, Sequence[str]]]) -> dict[str, Any]:
    """hit@1 and hit@3 in all and by kind, as percentages."""
    by_kind: dict[str, list[tuple[Pair, Sequence[str]]]] = defaultdict(list)
    for pair, found in answers:
        by_kind["all"].append((pair, found))
        by_kind[pair.kind].append((pair, found))
    return {
        f"{kind} hit@1 / @3": " / ".join(_percent(group, k) for k in (1, 3)) for kind, group in sorted(by_kind.items())
    }


def _percent(group: Sequence[tuple[Pair, Sequence[str]]], k: int) -> str:
    return f"{100 * sum(hit(pair, found, k) for pair, found in group) / len(group):.1f}"
