"""One search: embed the question, gather candidates, rank, fold repetitions, fetch what is answered.

The transaction begins while the question is embedded if the model is at hand, else afterwards.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from shared.clock import utc_now
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError, NotFound
from shared.memory.embedding.port import Vector
from shared.memory.embedding.spaces import Space, Spaces
from shared.memory.model import MemoryQuery, Recollection, ScopeRef, SearchMode, Turn
from shared.memory.search import store_answers, store_candidates, store_scopes
from shared.memory.search.folding import fold
from shared.memory.search.fusion import Candidate, Question, Ranked, rank
from shared.memory.search.sizes import ScopeSizes
from shared.memory.search.store_candidates import SearchPlan
from shared.memory.search.terms import query_terms
from shared.observability import Log

_DEPTH = 100  # candidates of each arm
_PARTS = 8  # the most vectors an item has
_REACH = 2  # neighbours on each side that count
_SPARE = 2  # so many times k are looked at for repetitions
_FOLDED_CHARACTERS = 1000
_MISS_BELOW = 0.35
"""A query whose best answer scores less counts as a miss."""

_log = Log("memory")
_Result = TypeVar("_Result")


class Searcher:
    """Finds memories for agents."""

    def __init__(self, database: Database, spaces: Spaces) -> None:
        self._database = database
        self._spaces = spaces
        self._sizes = ScopeSizes()

    async def search(self, query: MemoryQuery) -> list[Recollection]:
        """The ``k`` best, best first. Raises NotFound (agent)."""
        space = await self._spaces.active()
        is_at_hand = space.embedder.is_at_hand
        async with _begun(self._embed(space, query)) as embedding:
            if not is_at_hand:  # no connection is held while a provider is asked
                await embedding
            async with self._database.agent(query.microdao_id, query.agent_id, query.user_id) as connection:
                scopes = await self._scopes(connection, query, space)
                vector = await embedding
                plan = _plan(query, space, vector, scopes)
                found = await store_candidates.find_candidates(connection, plan)
                mode: SearchMode = "lexical" if vector is None else query.mode
                question = Question(text=query.query, asked_at=utc_now(), idf=found.idf, cosines=plan.marks)
                candidates = [Candidate._make(signals) for signals in found.candidates]
                ranked = rank(candidates, question, query.k, mode, explain=query.explain)
                return await _answers(connection, query, ranked)

    async def _embed(self, space: Space, query: MemoryQuery) -> Vector | None:
        """None when the question is to be answered by words alone: also when no model can be paid or reached."""
        if query.mode == "lexical":
            return None
        try:
            return await space.embed_query(self._spaces.recent, query.query, query.microdao_id)
        except ApiError as error:
            if query.mode == "vector":
                raise
            _log.warning("a question is answered by its words only", microdao_id=query.microdao_id, code=error.code)
            return None

    async def _scopes(self, connection: Connection, query: MemoryQuery, space: Space) -> list[Row]:
        """What the agent may read, with its size. Raises NotFound (agent)."""
        sizes = self._sizes.known()
        scopes = await store_scopes.read_scopes(connection, space.id, query.filters, list(sizes))
        if not any(scope["kind"] == "agent" and scope["name"] == query.agent_id for scope in scopes):
            raise NotFound(f"there is no agent {query.agent_id!r} in this microDAO", param="agent_id")
        self._sizes.complete(scopes, sizes)
        return scopes


@asynccontextmanager
async def _begun(work: Coroutine[Any, Any, _Result]) -> AsyncIterator["asyncio.Task[_Result]"]:
    """The work as a task that does not outlive the block."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen: whoever awaited the task has raised it


def _plan(query: MemoryQuery, space: Space, vector: Vector | None, scopes: Sequence[Row]) -> SearchPlan:
    wanted = [scope for scope in scopes if scope["kind"] in (query.filters.scopes or (scope["kind"],))]
    depth = max(_DEPTH, _SPARE * query.k)
    items = sum(scope["items"] for scope in wanted)
    return SearchPlan(
        space_id=space.id,
        dimensions=space.dimensions,
        marks=space.embedder.cosines,
        vector=vector,
        terms=() if query.mode == "vector" else tuple(query_terms(query.query)),
        scopes=[scope["scope_id"] for scope in wanted],
        large_scopes=[scope["scope_id"] for scope in wanted if scope["is_large"]],
        filters=query.filters,
        depth=depth,
        parts=max(depth, _PARTS * query.k),
        reach=_REACH,
        items=items,
        mean_words=max(1.0, sum(scope["words"] for scope in wanted) / max(1, items)),
    )


async def _answers(connection: Connection, query: MemoryQuery, ranked: Sequence[Ranked]) -> list[Recollection]:
    shortlist = [one.number for one in ranked[: _SPARE * query.k] if one.score >= query.min_score]
    texts = await store_answers.read_texts(connection, shortlist, _FOLDED_CHARACTERS)
    chosen = dict(fold(shortlist, texts, query.k))
    scored = {one.number: one for one in ranked}
    turns = await _turns(connection, query, list(chosen))
    rows = await store_answers.finish(connection, list(chosen), _asked(query, ranked))
    ids = {row["number"]: row["id"] for row in rows}
    return [_recollection(row, scored[row["number"]], ids.get(chosen[row["number"]] or 0), turns) for row in rows]


def _asked(query: MemoryQuery, ranked: Sequence[Ranked]) -> dict[str, Any]:
    return {
        "microdao_id": query.microdao_id,
        "agent_id": query.agent_id,
        "misses": int(not ranked or ranked[0].score < _MISS_BELOW),
        "with_content": query.with_content,
    }


async def _turns(
    connection: Connection, query: MemoryQuery, numbers: Sequence[int]
) -> dict[tuple[int, int], list[Turn]]:
    """Neighbours in order of time by item and side (-1 before, 1 after)."""
    turns: dict[tuple[int, int], list[Turn]] = defaultdict(list)
    if query.context_turns and numbers:
        for row in await store_answers.read_turns(connection, numbers, query.context_turns):
            turn = Turn(id=row["id"], text=row["text"], occurred_at=row["occurred_at"])
            turns[row["item"], row["step"]].append(turn)
    return turns


def _recollection(
    row: Row, ranked: Ranked, duplicate_of: str | None, turns: dict[tuple[int, int], list[Turn]]
) -> Recollection:
    number = row.pop("number")
    return Recollection(
        scope=ScopeRef(row.pop("scope_kind"), row.pop("scope_name")),
        score=round(ranked.score, 6),
        duplicate_of=duplicate_of,
        before=tuple(turns[number, -1]),
        after=tuple(turns[number, 1]),
        why=ranked.why,
        **row,
    )
