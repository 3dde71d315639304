"""Chooses the tool that a request speaks of, for the offline provider. Pure."""

import re
from collections.abc import Sequence

from shared.llm.providers.offline import facts
from shared.llm.providers.offline.expression import find_expression
from shared.llm.providers.offline.intent import action_of
from shared.llm.providers.offline.lexicon import ACTIONS, EFFECTS, RECALL
from shared.llm.providers.offline.reading import OfferedTool
from shared.llm.providers.offline.words import overlap, tokens

EXPRESSION_NAMES = frozenset({"expression", "expr", "formula", "calculation", "equation"})
QUERY_NAMES = frozenset({"query", "q", "question", "search", "search_query", "keywords"})

_THRESHOLD = 3.0
_OBJECT_IN_NAME = 3.0
_ACTION_IN_NAME = 1.5
_IN_DESCRIPTION = 1.0
_IN_PARAMETERS = 0.5
_EXPRESSION = 10.0
_FIRST_OBJECT = 2.0


def choose_tool(clause: str, tools: Sequence[OfferedTool], *, at_least: float = _THRESHOLD) -> OfferedTool | None:
    """The best tool for one request, or None when no tool's words come near enough."""
    first = _first_object(clause, tools)
    scored = [(_with_bonus(score(clause, tool), tool, first), -index, tool) for index, tool in enumerate(tools)]
    best = max(scored, key=lambda entry: entry[:2], default=None)
    return best[2] if best and best[0] >= at_least else None


def searching_tool(tools: Sequence[OfferedTool]) -> OfferedTool | None:
    """A tool that looks things up by a free query: what is left to try for a question that nothing else fits.

    Not one for memories: those that fit are in the prompt.
    """
    found = (tool for tool in tools if "search" in tool.name_tokens and QUERY_NAMES & set(tool.required))
    return next((tool for tool in found if "memory" not in tool.name_tokens), None)


def score(clause: str, tool: OfferedTool) -> float:
    """How well a tool fits a request, by the words they share.

    A word of the tool's name counts most. Something that a tool works on must be mentioned, not only the action; and a
    tool that changes something fits only where that change is the first action named.
    """
    if _takes_expression(tool) and find_expression(clause):
        return _EXPRESSION
    action = action_of(clause)
    effects = EFFECTS & tool.name_tokens
    if (effects and action not in effects) or (action in EFFECTS - tool.name_tokens - tool.description_tokens):
        return 0.0
    wanted = (set(tokens(clause)) - EFFECTS) | ({action} - {""})
    in_name = overlap(wanted, tool.name_tokens)
    in_description = overlap(wanted, tool.description_tokens) - in_name
    in_parameters = overlap(wanted, tool.parameter_tokens) - in_name - in_description
    if not in_name - ACTIONS and len(in_description - ACTIONS) < 2 and not _is_bare_action(tool, in_name):
        return 0.0
    return (
        _OBJECT_IN_NAME * len(in_name - ACTIONS)
        + _ACTION_IN_NAME * len(in_name & ACTIONS)
        + _IN_DESCRIPTION * len(in_description)
        + _IN_PARAMETERS * len(in_parameters)
    ) + _THRESHOLD * _is_bare_action(tool, in_name)


def is_about_the_past(text: str) -> bool:
    """Whether a text asks for what was said before, which memories answer better than tools."""
    return re.search(RECALL, text, re.IGNORECASE) is not None


def _takes_expression(tool: OfferedTool) -> bool:
    return bool(EXPRESSION_NAMES & set(tool.properties))


def _is_bare_action(tool: OfferedTool, in_name: set[str]) -> bool:
    """A tool named by an action alone (``search``, ``calculate``) is asked for by that action."""
    return tool.name_tokens <= ACTIONS and bool(in_name) and in_name != {"list"}


def _with_bonus(points: float, tool: OfferedTool, first: str) -> float:
    return points + _FIRST_OBJECT if points and first in tool.name_tokens else points


def _first_object(clause: str, tools: Sequence[OfferedTool]) -> str:
    """What the action is done to: "task" in "add a task in project X", where both have a tool."""
    objects = frozenset().union(*(tool.name_tokens for tool in tools)) - ACTIONS
    said = tokens(facts.container(clause, "project")[1])
    action = action_of(clause)
    begin = said.index(action) if action in said else 0
    return next((token for token in [*said[begin:], *said] if token in objects), "")
