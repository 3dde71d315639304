"""How much of what requests need is found: the product's search beside its parts alone.

R@k is the share of a request's tools in the first k, complete@10 whether all are in the first ten; means over requests.
"""

import random
from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from bench.tool_search.catalogue import ALL, Stack, run
from bench.tool_search.sets import Request, ToolSet
from shared.memory.search.terms import query_terms
from shared.tools.search.model import ToolQuery
from shared.tools.search.ranking import best, score_words
from shared.tools.search.text import parameter_text, split_name

_RRF = 60
_SHARE = 0.1
_NEEDED_SHARE = 0.25
"""The most of an agent's few tools that its requests need."""


def quality(stack: Stack, tools: ToolSet, microdao: str) -> list[dict[str, Any]]:
    """A row a method: with every tool permitted, and with a tenth of them."""
    everybody = [(ALL, request) for request in tools.requests]
    few = _restricted(tools)
    run(stack.grant(microdao, {agent: names for agent, names, _ in few}))
    restricted = [(agent, request) for agent, _, requests in few for request in requests]
    rows = []
    for asked, permitted in ((everybody, "all"), (restricted, "a tenth")):
        found = run(_find(stack, microdao, asked))
        for method in ("dense", "BM25", "RRF", "ours"):
            answers = [(request, names[method]) for (_, request), names in zip(asked, found, strict=True)]
            rows.append({"set": tools.name, "permitted": permitted, "method": method, **figures(answers)})
    return rows


def figures(answers: Sequence[tuple[Request, Sequence[str]]]) -> dict[str, float]:
    """Percentages of requests with the names found for them, best first."""

    def recall(k: int) -> float:
        return round(100 * mean(len(one.needs & set(names[:k])) / len(one.needs) for one, names in answers), 1)

    complete = mean(float(one.needs <= set(names[:10])) for one, names in answers)
    return {"R@5": recall(5), "R@10": recall(10), "complete@10": round(100 * complete, 1)}


async def _find(stack: Stack, microdao: str, asked: Sequence[tuple[str, Request]]) -> list[dict[str, list[str]]]:
    search = stack.search()
    space = await stack.spaces.active()
    answers = []
    passages: dict[str, Any] = {}
    for agent, request in asked:
        found = await search.search(ToolQuery(microdao_id=microdao, agent_id=agent, text=request.text, k=10))
        view = await search.catalogues.view(microdao, agent, space)
        names = [view.catalogue.tools[slot].name for slot in view.slots]
        if agent not in passages:
            passages[agent] = await _passages(stack, microdao, names)
        vector = await space.embed_query(stack.spaces.recent, request.text, microdao)
        dense = passages[agent] @ np.array(vector, np.float32)
        words = score_words(view.catalogue, view.slots, query_terms(request.text))
        ranks = sum(1 / (_RRF + 1 + np.argsort(np.argsort(-one, kind="stable"))) for one in (dense, words))
        alone = {"dense": dense, "BM25": words, "RRF": ranks}
        answers.append(
            {method: [names[place] for place in best(np.asarray(one, np.float32), 10)] for method, one in alone.items()}
            | {"ours": [tool.name for tool in found.tools]}
        )
    stack.model.save()
    return answers


async def _passages(stack: Stack, microdao: str, names: Sequence[str]) -> Any:
    """The vectors [names, dimensions] of tools' whole texts as one passage each, as a plain vector search has them."""
    async with stack.database.tenant(microdao) as connection:
        cursor = await connection.execute(
            "SELECT name, description, parameters FROM tool JOIN tool_version ON tool_id = id"
        )
        rows = await cursor.fetchall()
    texts = {row["name"]: f"{split_name(row['name'])}: {row['description']}" for row in rows}
    for row in rows:
        if arguments := parameter_text(row["parameters"]):
            texts[row["name"]] += f" Parameters: {arguments}"
    return np.array(stack.model.embed([texts[name] for name in names]), np.float32)


def _restricted(tools: ToolSet) -> list[tuple[str, list[str], list[Request]]]:
    """Agents with a tenth of the tools each, chosen at random around what some requests need, and these requests."""
    chance = random.Random(5)
    size = round(_SHARE * len(tools.tools))
    names = [tool.name for tool in tools.tools]
    agents: list[tuple[set[str], list[Request]]] = []
    for request in sorted(tools.requests, key=lambda one: sorted(one.needs)):
        if not agents or len(agents[-1][0] | request.needs) > max(len(request.needs), _NEEDED_SHARE * size):
            agents.append((set(), []))
        agents[-1][0].update(request.needs)
        agents[-1][1].append(request)
    found = []
    for number, (needed, requests) in enumerate(agents):
        others = chance.sample([name for name in names if name not in needed], size - len(needed))
        found.append((f"agent:few-{number}", [*needed, *others], requests))
    return found
