"""What memory finds, through its own API: ``python -m bench.memory.quality``.

LoCoMo's turns are posted session by session, each session its own channel of its conversation's agent, with the date
of the session; pairs in Ukrainian and Russian are stored one by one. Then the indexer runs, and every question is asked
through ``POST /internal/agent-memory/query`` with k = 10. Protocol and metrics: ``bench/memory/locomo.py``.
"""

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.memory.locomo import Answer, Conversation, data_file, figures, read_conversations
from bench.memory.pairs import LANGUAGES, Pair, read_pairs
from bench.memory.pairs import figures as pair_figures
from bench.memory.stack import AGENT, Api, Stack, run, running_stack
from bench.report import report
from shared.db.database import fetch_all
from shared.memory.embedding.e5 import MultilingualE5
from shared.memory.embedding.port import LocalModel
from shared.memory.model import IndexJob

MODES = ("vector", "lexical", "hybrid")
_DATA = "locomo_dev.json"
_K = 10
# The same five conversations, measured outside this product (MiniLM; weights of the fusion chosen by hand).
_ANCHORS = [
    {"search": "anchor: cosine, all-MiniLM-L6-v2", "R@10": 49.3, "session hit@10, all categories": 84.1},
    {"search": "anchor: BM25, stems", "R@10": 60.7, "session hit@10, all categories": 94.4},
    {"search": "anchor: four signals, linear", "R@10": 74.2, "session hit@10, all categories": 95.3},
]

# The pairs with all-MiniLM-L6-v2 (int8), an English model, by plain cosine: hit@1 / @3.
_ENGLISH_MODEL = {
    "uk": {"all": "16.9 / 30.0", "inflected": "25.0 / 41.2", "synonym": "4.0 / 12.0"},
    "ru": {"all": "22.3 / 39.2", "inflected": "32.5 / 52.5", "synonym": "6.0 / 18.0"},
}


def main() -> None:
    """Both tables."""
    with tempfile.TemporaryDirectory(prefix="daarion-bench-") as folder, running_stack(Path(folder)) as stack:
        file = data_file(_DATA)
        if file is None:
            print(f"LoCoMo is skipped: {_DATA} is neither in ../shared/data nor in DAARION_BENCH_DATA")
        else:
            locomo(stack, read_conversations(file))
        languages(stack)


def locomo(stack: Stack, conversations: Sequence[Conversation]) -> None:
    """Recall of evidence turns, by mode."""
    answers: dict[str, list[Answer]] = {mode: [] for mode in MODES}
    by_conversation = []
    for conversation in conversations:
        own = _answers(stack, conversation)
        for mode in MODES:
            answers[mode] += own[mode]
        turns, questions = len(conversation.turns), len(conversation.questions)
        placed = {"conversation": conversation.name, "turns": turns, "questions": questions}
        by_conversation.append(placed | figures(own["hybrid"]))
    model = run(stack.services.memory.spaces.active()).embedder.model
    rows: list[dict[str, Any]] = [{"search": mode, **figures(answers[mode])} for mode in MODES]
    columns = dict.fromkeys(rows[0], "")
    report(
        "memory-quality",
        [*rows, *({**columns, **anchor} for anchor in _ANCHORS)],
        f"percent; categories 1-4 unless said; embedded with {model}",
    )
    report("memory-quality-conversations", by_conversation, "hybrid")
    report("memory-quality-categories", _by_category(answers["hybrid"]), "hybrid")


def _by_category(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    rows = []
    for category in sorted({answer.question.category for answer in answers}):
        group = [answer for answer in answers if answer.question.category == category]
        recalls = {f"R@{k}": round(100 * sum(answer.recall(k) for answer in group) / len(group), 1) for k in (5, 10)}
        rows.append({"category": category, "questions": len(group), **recalls})
    return rows


def _answers(stack: Stack, conversation: Conversation) -> dict[str, list[Answer]]:
    microdao = f"microdao:locomo-{conversation.name}"
    api = run(stack.tenant(microdao))
    turns = _post(api, conversation)
    run(index(stack, microdao))
    return {
        mode: [
            Answer(question, [turns[one["id"]] for one in api.query(question.text, mode=mode, k=_K)])
            for question in conversation.questions
        ]
        for mode in MODES
    }


def _post(api: Api, conversation: Conversation) -> dict[str, str]:
    """Tell every turn; turns' ids by their items' ids."""
    turns: dict[str, str] = {}
    for session, said in groupby(conversation.turns, key=lambda turn: turn.session):
        group = list(said)
        messages = [{"id": turn.id, "text": turn.text, "occurred_at": turn.said_at.isoformat()} for turn in group]
        body = {"agent_id": AGENT, "messages": messages}
        ids = api.post(f"/internal/channels/session-{session}/messages", body)["ids"]
        turns |= {item: turn.id for item, turn in zip(ids, group, strict=True)}
    return turns


async def index(stack: Stack, microdao: str) -> None:
    """Deliver a tenant's jobs to the indexer, as the queue would. Raises RuntimeError when one fails."""
    async with stack.services.database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'memory' ORDER BY id")
    bodies = [row["body"] for row in rows]
    for number, body in enumerate(bodies):
        job = IndexJob(f"message-{number}", body["job_id"], body["microdao_id"], tuple(body["item_ids"]))
        if await stack.services.memory.index([job]):
            raise RuntimeError(f"{microdao}: a batch could not be indexed")


def languages(stack: Stack) -> None:
    """hit@1 and hit@3 of the pairs, by language and mode, beside bare models."""
    bare = MultilingualE5(stack.settings.home / "models")
    rows = []
    for language, name in LANGUAGES.items():
        pairs = read_pairs(language)
        api = _stored(stack, f"microdao:pairs-{language}", pairs)
        for mode in reversed(MODES):
            answers = [(pair, [one["text"] for one in api.query(pair.query, mode=mode, k=3)]) for pair in pairs]
            rows.append({"language": name, "search": mode, **pair_figures(answers)})
        rows.append({"language": name, "search": f"bare {bare.name}", **pair_figures(_nearest(bare, pairs))})
        english = {f"{kind} hit@1 / @3": figure for kind, figure in _ENGLISH_MODEL[language].items()}
        rows.append({"language": name, "search": "bare all-MiniLM-L6-v2", **english})
    report("memory-languages", rows, "percent; 130 memories a language")


def _stored(stack: Stack, microdao: str, pairs: Sequence[Pair]) -> Api:
    api = run(stack.tenant(microdao))
    for pair in pairs:
        api.post("/internal/agent-memory/store", {"agent_id": AGENT, "content": {"text": pair.memory}})
    run(index(stack, microdao))
    return api


def _nearest(model: LocalModel, pairs: Sequence[Pair]) -> list[tuple[Pair, list[str]]]:
    """Plain cosine of the whole texts."""
    memories = np.array(model.embed([pair.memory for pair in pairs]))
    cosines = np.array(model.embed([pair.query for pair in pairs], "query")) @ memories.T
    return [
        (pair, [pairs[place].memory for place in np.argsort(-row)[:3]])
        for pair, row in zip(pairs, cosines, strict=True)
    ]


if __name__ == "__main__":
    main()
