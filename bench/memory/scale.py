"""Speed, recall and size of memory with many items: ``python -m bench.memory.scale --items 100000,1000000``.

Latency is the whole warm query over HTTP (key, policy, embedding of the question, search, counting of hits), hybrid,
k = 10, one after another on one connection. Recall compares the vector arm with exact search in float32 over the same
half-precision vectors. ``--folder`` keeps the loaded data there for the next run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from bench.memory import bulk, corpus
from bench.memory.corpus import Tenant
from bench.memory.stack import AGENT, Stack, load_average, run, running_stack
from bench.report import report
from shared.memory.embedding.spaces import Space
from shared.memory.model import Filters
from shared.memory.search import store_candidates, store_scopes

K = 10
QUERIES = 200
RECALL_QUERIES = 100
WARMING = 20
_QUESTION_WORDS = 6  # some 15 tokens for a multilingual model, as many as a real question has
_TENANTS_A_CLASS = 4
_STORED = 300
_BATCH, _BATCHES = 500, 4
CLASSES = {
    "10": 10,
    "11 to 1,000": 1_000,
    "1,001 to 20,000": 20_000,
    "20,001 to 150,000": 150_000,
    "over 150,000": 10**9,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The loaded stack."""

    stack: Stack
    tenants: list[Tenant]
    scopes: list[int]
    space: Space


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="100000", help="comma-separated corpus sizes")
    parser.add_argument("--folder", type=Path, help="keep the data here")
    arguments = parser.parse_args()
    for items in map(int, arguments.items.split(",")):
        with _folder(arguments.folder, items) as folder, running_stack(folder) as stack:
            measure(stack, items)


@contextmanager
def _folder(kept: Path | None, items: int) -> Iterator[Path]:
    if kept:
        yield kept / str(items)
        return
    with tempfile.TemporaryDirectory(prefix="daarion-bench-") as folder:
        yield Path(folder)


def measure(stack: Stack, items: int) -> None:
    """Load, then every table of figures."""
    subject, loading = prepare(stack, items)
    if loading:
        report(f"memory-scale-{items}-loading", loading)
    groups = [_by_class(subject.tenants, low, high) for low, high in _bounds()]
    named = [(name, group) for name, group in zip(CLASSES, groups, strict=True) if group]
    report(
        f"memory-scale-{items}",
        [_row(subject, name, group) for name, group in named],
        f"load average at the end: {load_average()}; recall and rows: worst tenant of the class in brackets",
    )
    report(f"memory-scale-{items}-stores", _store_rates(subject))
    report(f"memory-scale-{items}-sizes", _sizes(stack))


def prepare(stack: Stack, items: int) -> tuple[Subject, list[dict[str, Any]]]:
    """The corpus in the tables; what loading took, unless it was there already."""
    tenants = corpus.tenants(items)
    space = run(stack.services.memory.spaces.active())
    for tenant in tenants:
        run(stack.ensure_agent(tenant.microdao))
    with psycopg.connect(stack.postgres.admin_url) as connection:
        found = connection.execute("SELECT microdao_id, scope_id FROM memory_scope WHERE name = %s", (AGENT,))
        numbered = dict(found.fetchall())
        is_loaded = connection.execute("SELECT 1 FROM memory_item LIMIT 1").fetchone()
    scopes = [numbered[tenant.microdao] for tenant in tenants]
    subject = Subject(stack, tenants, scopes, space)
    return subject, [] if is_loaded else _load(subject)


def _load(subject: Subject) -> list[dict[str, Any]]:
    admin_url, space = subject.stack.postgres.admin_url, subject.space
    loaded = bulk.load(admin_url, subject.tenants, subject.scopes, space.id, space.dimensions)
    total = sum(tenant.items for tenant in subject.tenants)
    rows = [
        {"step": f"COPY {name}", "s": round(seconds, 1), "items/s": round(total / seconds)}
        for name, seconds in loaded.seconds.items()
    ]
    for tenant in subject.tenants:
        if tenant.items > corpus.MIDDLE:
            seconds = _enlarge(subject, tenant)
            step = f"partition and HNSW of {tenant.items:,} vectors"
            rows.append({"step": step, "s": round(seconds, 1), "items/s": round(tenant.items / seconds)})
    return rows


def _enlarge(subject: Subject, tenant: Tenant) -> float:
    began = time.perf_counter()
    scope = subject.scopes[tenant.index]
    with psycopg.connect(subject.stack.postgres.admin_url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        with connection.transaction():
            connection.execute("SELECT enlarge_memory_scope(%s::smallint, %s)", (subject.space.id, scope))
            connection.execute("INSERT INTO memory_large_scope VALUES (%s, %s)", (subject.space.id, scope))
        connection.execute(f"VACUUM ANALYZE memory_embedding_{subject.space.id}_{scope}")
        connection.execute(f"VACUUM ANALYZE memory_embedding_{subject.space.id}_small")
    return time.perf_counter() - began


def _bounds() -> list[tuple[int, int]]:
    tops = list(CLASSES.values())
    return list(zip([0, *tops[:-1]], tops, strict=True))


def _by_class(tenants: Sequence[Tenant], low: int, high: int) -> list[Tenant]:
    """The smallest and largest tenants of a class, at most so many."""
    group = sorted((tenant for tenant in tenants if low < tenant.items <= high), key=lambda tenant: -tenant.items)
    return group if len(group) <= _TENANTS_A_CLASS else [*group[: _TENANTS_A_CLASS - 1], group[-1]]


def _row(subject: Subject, name: str, group: Sequence[Tenant]) -> dict[str, Any]:
    latencies = [one for tenant in group for one in _latencies(subject, tenant, QUERIES // len(group))]
    recalls = [run(_recall(subject, tenant)) for tenant in group]
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "tenant's items": name,
        "measured": ", ".join(f"{tenant.items:,}" for tenant in group),
        "p50 ms": round(cuts[49], 1),
        "p95 ms": round(cuts[94], 1),
        "p99 ms": round(cuts[98], 1),
        "recall@10": f"{statistics.mean(recalls):.4f} ({min(recalls):.4f})",
    }


def _latencies(subject: Subject, tenant: Tenant, count: int) -> list[float]:
    """Milliseconds of whole queries; each must bring min(k, n) rows."""
    api = run(subject.stack.tenant(tenant.microdao))
    questions = list(corpus.texts(tenant, count=WARMING + count, words=_QUESTION_WORDS, seed=1))
    taken = []
    for question in questions:
        began = time.perf_counter()
        found = api.query(question, k=K)
        taken.append((time.perf_counter() - began) * 1000)
        if len({one["id"] for one in found}) != min(K, tenant.items):
            raise AssertionError(f"{len(found)} of {min(K, tenant.items)} rows for {tenant}")
    return taken[WARMING:]


async def _recall(subject: Subject, tenant: Tenant) -> float:
    """The share of the ten exactly nearest that the vector arm finds, mean over questions."""
    mine = corpus.vectors(tenant, subject.space.dimensions).astype(np.float32)
    mine /= np.linalg.norm(mine, axis=1, keepdims=True)
    numbers = bulk.numbers(bulk.order(subject.tenants), tenant)
    questions = corpus.vectors(tenant, subject.space.dimensions, count=RECALL_QUERIES, seed=1).astype(np.float32)
    shares = []
    for question in questions:
        exact = set(numbers[np.argsort(-(mine @ question), kind="stable")[:K]].tolist())
        found = await _nearest(subject, tenant, question.tolist())
        if len(found) != min(K, tenant.items):
            raise AssertionError(f"{len(found)} of {min(K, tenant.items)} vectors for {tenant}")
        shares.append(len(exact & set(found)) / len(exact))
    return statistics.mean(shares)


async def _nearest(subject: Subject, tenant: Tenant, vector: list[float]) -> list[int]:
    async with subject.stack.services.database.agent(tenant.microdao, AGENT) as connection:
        scopes = await store_scopes.read_scopes(connection, subject.space.id, Filters())
        plan = store_candidates.SearchPlan(
            space_id=subject.space.id,
            dimensions=subject.space.dimensions,
            marks=subject.space.embedder.cosines,
            vector=vector,
            terms=(),
            scopes=[scope["scope_id"] for scope in scopes],
            large_scopes=[scope["scope_id"] for scope in scopes if scope["is_large"]],
            filters=Filters(),
            depth=100,
            parts=100,
            reach=2,
            items=tenant.items,
            mean_words=1.0,
        )
        found = await store_candidates.find_candidates(connection, plan)
    names = store_candidates.SIGNALS
    rows = [dict(zip(names, values, strict=True)) for values in found.candidates]
    return [row["number"] for row in sorted(rows, key=lambda row: -row["cosine"])[:K]]


def _store_rates(subject: Subject) -> list[dict[str, Any]]:
    """Items a second through the API, one caller, while the tables hold the corpus."""
    newcomer = Tenant(corpus.TENANTS, _STORED + _BATCH * _BATCHES)
    api = run(subject.stack.tenant(f"{newcomer.microdao}-{time.time_ns()}"))
    texts = list(corpus.texts(newcomer))
    path = "/internal/agent-memory/store"
    began = time.perf_counter()
    for text in texts[:_STORED]:
        api.post(path, {"agent_id": AGENT, "content": {"text": text}, "session_id": "sess_bench"})
    singly, began = time.perf_counter() - began, time.perf_counter()
    for start in range(_STORED, len(texts), _BATCH):
        messages = [{"text": text} for text in texts[start : start + _BATCH]]
        api.post("/internal/channels/bench/messages", {"agent_id": AGENT, "messages": messages})
    batched = time.perf_counter() - began
    return [
        {"way": "POST store, one item each", "items": _STORED, "items/s": round(_STORED / singly)},
        {
            "way": f"POST messages, {_BATCH} each",
            "items": _BATCH * _BATCHES,
            "items/s": round(_BATCH * _BATCHES / batched),
        },
    ]


def _sizes(stack: Stack) -> list[dict[str, Any]]:
    """Megabytes of each table of memory and of its indexes."""
    query = """
        SELECT c.relname, pg_relation_size(c.oid) / 1000000, i.relname, pg_relation_size(i.oid) / 1000000
        FROM pg_class c LEFT JOIN pg_index x ON x.indrelid = c.oid LEFT JOIN pg_class i ON i.oid = x.indexrelid
        WHERE c.relkind = 'r'
            AND (c.relname IN ('memory_item', 'memory_posting') OR c.relname LIKE 'memory_embedding%')
        ORDER BY c.relname, pg_relation_size(i.oid) DESC
    """
    with psycopg.connect(stack.postgres.admin_url) as connection:
        rows = connection.execute(query).fetchall()
    return [
        {"table": table, "MB": size, "index": index, "index MB": index_size} for table, size, index, index_size in rows
    ]


if __name__ == "__main__":
    main()
