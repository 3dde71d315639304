"""Finds the tools for a request, and chooses those that go into an agent's prompt."""

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from shared.db.database import Database
from shared.errors import ApiError
from shared.memory.embedding.spaces import Space, Spaces
from shared.memory.search.terms import query_terms
from shared.observability import Log
from shared.tools.arguments import check_text
from shared.tools.model import Tool
from shared.tools.search import store_search
from shared.tools.search.catalogues import MOST_BYTES, Catalogues, View
from shared.tools.search.clauses import split_clauses
from shared.tools.search.filters import Entry, permitted
from shared.tools.search.model import MOST_CHARACTERS, Found, FoundTool, ToolQuery
from shared.tools.search.ranking import Question, best, score

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ASIDE: Final = 2000
"""Tools whose scores take so long that they are computed beside the event loop."""

_log = Log("tools")


class ToolSearch:
    """Search in the tools that agents were granted. ``profile`` is the environment that this process runs in."""

    def __init__(self, database: Database, spaces: Spaces, profile: str, most_bytes: int = MOST_BYTES) -> None:
        self._database = database
        self._spaces = spaces
        self._profile = profile
        self.catalogues = Catalogues(database, most_bytes)

    async def search(self, query: ToolQuery) -> Found:
        """The required tools, then the ``k`` best. Raises InvalidRequest, NotFound (agent).

        Where nothing is found, because the request says nothing, the first ``k`` that may be used stand in by name.
        """
        check_text(query.agent_id, "agent_id")
        check_text(query.text, "query")
        text = query.text[:MOST_CHARACTERS]
        space = await self._spaces.active()
        vectors = await self._embed(space, text, query.microdao_id)
        view = await self.catalogues.view(query.microdao_id, query.agent_id, space)
        if len(view.slots) < _ASIDE:
            return _found(view, query, vectors, self._profile)
        return await asyncio.to_thread(_found, view, query, vectors, self._profile)

    async def choose(
        self,
        microdao_id: str,
        agent_id: str,
        tools: Sequence[Tool],
        *,
        text: str,
        required: Collection[str],
        limit: int,
    ) -> list[Tool]:
        """Those of an agent's tools that go into its prompt: all of them up to ``limit``, else the required ones
        (names) and the ``limit`` best for the text. How many is logged and counted."""
        chosen = list(tools)
        if is_searched := len(chosen) > limit:
            query = ToolQuery(
                microdao_id=microdao_id,
                agent_id=agent_id,
                text=text.replace("\0", " "),
                k=limit,
                allow={tool.name for tool in tools},
                required=required,
            )
            names = await self._names(query)
            chosen = [tool for tool in tools if tool.name in names]
        figures = {"tools": len(chosen), "granted": len(tools), "searched": int(is_searched)}
        _log.info("tools in the prompt", microdao_id=microdao_id, agent_id=agent_id, **figures)
        await store_search.count_prompt(self._database, microdao_id, agent_id, figures)
        return chosen

    async def _names(self, query: ToolQuery) -> set[str]:
        """The names found; where search fails, the required ones and the first by name: a turn goes on without it."""
        try:
            return {tool.name for tool in (await self.search(query)).tools}
        except ApiError as error:
            _log.warning("tools are chosen by name", microdao_id=query.microdao_id, code=error.code)
            return {*query.required, *sorted(set(query.allow) - set(query.required))[: query.k]}

    async def _embed(self, space: Space, text: str, microdao_id: str) -> "NDArray[np.float32] | None":
        """One vector a clause; None when the request is to be answered by its words alone."""
        try:
            made = await asyncio.gather(
                *(space.embed_query(self._spaces.recent, clause, microdao_id) for clause in split_clauses(text))
            )
        except ApiError as error:
            _log.warning("tools are found by their words only", microdao_id=microdao_id, code=error.code)
            return None
        return np.array(made, np.float32) if made else None


def _found(view: View, query: ToolQuery, vectors: "NDArray[np.float32] | None", profile: str) -> Found:
    catalogue = view.catalogue
    required, others = permitted(catalogue.facets, view.slots, query, profile)
    framed = view.frame.requests(vectors) if view.frame and vectors is not None else None
    scores = score(catalogue, others, Question(framed, query_terms(query.text[:MOST_CHARACTERS])))
    always = [_shown(catalogue.tools[slot], 1.0, "required") for slot in required]
    if scores.found:
        places = best(scores.total, query.k)
        chosen = [_shown(catalogue.tools[others[place]], float(scores.total[place]), "found") for place in places]
    else:
        by_name = sorted((catalogue.tools[slot] for slot in others), key=lambda tool: tool.name)
        chosen = [_shown(tool, 0.0, "allowed") for tool in by_name[: query.k]]
    return Found([*sorted(always, key=lambda tool: tool.name), *chosen], len(required) + len(others))


def _shown(tool: Entry, score: float, why: Literal["required", "found", "allowed"]) -> FoundTool:
    return FoundTool(tool.id, tool.name, round(score, 4), why)
