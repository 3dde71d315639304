"""Turns the requests of a message into tool calls, or into what must be said or asked instead. Pure.

A tool that changes something is used on command only. What is forbidden, wondered about or beyond the tools is answered
in words, and nothing happens.
"""

import re
from dataclasses import dataclass
from typing import Any

from shared.llm.providers.offline import facts
from shared.llm.providers.offline.arguments import Known, fill_arguments, known_things, refers_to_nothing
from shared.llm.providers.offline.choice import choose_tool, is_about_the_past, score, searching_tool
from shared.llm.providers.offline.intent import (
    action_of,
    is_agreeing,
    is_deliberation,
    is_negated,
    is_question,
    read_mood,
)
from shared.llm.providers.offline.lexicon import ACTIONS, EFFECTS
from shared.llm.providers.offline.memory import recall
from shared.llm.providers.offline.phrases import WORDS, say
from shared.llm.providers.offline.reading import OfferedTool, Pending, Reading
from shared.llm.providers.offline.words import overlap, tokens

_HOW = re.compile(r"^(?:how (?:do|can|to|should|would)|why|як|чому|навіщо|как|почему|зачем)\b", re.IGNORECASE)
_CERTAIN = 10.0
"""The score from which on a tool fits whatever the memories say."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    args: dict[str, Any]


def forced_tool(reading: Reading) -> Call | None:
    """The call that ``tool_choice`` insists on, unless it was made in this turn."""
    choice = reading.request.tool_choice
    if choice != "required" and not isinstance(choice, dict):
        return None
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    offered = [tool for tool in reading.tools if name in (None, tool.name)]
    tool = choose_tool(reading.text, offered, at_least=0.0)
    if tool is None:
        return None
    call = Call(tool.name, fill_arguments(tool, reading.text, _known(reading), insist=True).args)
    return None if _was_made(reading, call) else call


def next_call(reading: Reading) -> Call | str | None:
    """The first request whose tool was not called yet; else what to say about the others; None for nothing at all."""
    if reading.pending and may_call(reading) and (answered := _continued(reading, reading.pending)):
        is_made = isinstance(answered, Call) and any(done.tool == answered.tool for done in reading.done)
        return None if is_made else answered
    notes: list[str] = []
    for clause in reading.clauses:
        reply = _for_clause(reading, clause, is_waiting=bool(notes or reading.done))
        if isinstance(reply, Call):
            return reply
        if reply:
            notes.append(reply)
    return "\n".join(dict.fromkeys(notes)) or None


def search_call(reading: Reading) -> Call | None:
    """Looks a question up where the words themselves gave no tool."""
    tool = searching_tool(reading.tools) if may_call(reading) and is_question(reading.text) else None
    if tool is None or not set(reading.tokens) - ACTIONS:
        return None
    filled = fill_arguments(tool, reading.text, _known(reading))
    return None if filled.missing else Call(tool.name, filled.args)


def abilities(reading: Reading) -> str:
    """The tools there are, in words."""
    if not reading.tools:
        return say(reading.language, "no_tools")
    return say(reading.language, "tools", names=", ".join(tool.name for tool in reading.tools))


def may_call(reading: Reading) -> bool:
    """Whether the request lets us use tools."""
    return bool(reading.tools) and reading.request.tool_choice != "none"


def _for_clause(reading: Reading, clause: str, *, is_waiting: bool) -> Call | str | None:
    """The call for one request if it is still to be made, or what to say instead.

    With ``is_waiting`` an earlier request of the message was to make what "it" is; where that failed, this waits too.
    """
    tool = _tool_for(reading, clause)
    if tool is None:
        return _unable(reading, clause)
    if not may_call(reading):
        return None
    known = _known(reading)
    filled = fill_arguments(tool, clause, known)
    if phrase := _objection(tool, clause):
        args = "".join(f", {name}: {value}" for name, value in filled.args.items())
        return say(reading.language, phrase, tool=tool.name, args=f" ({args[2:]})" if args else "")
    if filled.missing:
        return _ask(reading, tool, filled.missing)
    call = Call(tool.name, filled.args)
    is_idle = is_waiting and refers_to_nothing(tool, clause, known)
    return None if is_idle or _was_made(reading, call) else call


def _objection(tool: OfferedTool, clause: str) -> str | None:
    """Why a fitting tool is not to be used: it is not wanted, or was only wondered about."""
    mood = read_mood(clause)
    if mood == "command":
        return None
    if is_negated(clause):
        return "not_wanted"
    return "confirm" if EFFECTS & tool.name_tokens or is_deliberation(clause) else None


def _tool_for(reading: Reading, clause: str) -> OfferedTool | None:
    """The tool for one request, unless it only tells something, or the memories say more about it than the tool can."""
    if is_about_the_past(clause) or _HOW.search(clause):
        return None
    tool = choose_tool(clause, reading.tools)
    if tool is None or (EFFECTS & tool.name_tokens and read_mood(clause) == "told"):
        return None
    if not is_question(clause):
        return tool
    wanted = set(tokens(clause)) - ACTIONS
    known_to_tool = overlap(wanted, tool.name_tokens | tool.description_tokens)
    _, covered = recall(tokens(clause), [*reading.said, *reading.memories], is_about_the_past=False)
    remembers_more = bool(wanted) and covered > len(known_to_tool) / len(wanted) and score(clause, tool) < _CERTAIN
    return None if remembers_more else tool


def _unable(reading: Reading, clause: str) -> str | None:
    """That there is no tool for a change that is asked for; None where none is asked for."""
    action = action_of(clause)
    if action not in EFFECTS or read_mood(clause) not in ("command", "asked"):
        return None
    able = [tool for tool in reading.tools if action in tool.name_tokens]
    known = frozenset().union(*(tool.name_tokens for tool in reading.tools)) - ACTIONS
    named = set(tokens(clause)) & known
    if able and (not named or any(named & tool.name_tokens for tool in able)):
        return f"{say(reading.language, 'unclear')} {abilities(reading)}"
    return f"{say(reading.language, 'cannot', action=WORDS[reading.language][action])} {abilities(reading)}"


def _continued(reading: Reading, pending: Pending) -> Call | str | None:
    """The call that our question was about, now that the user answered it; None for something else said instead."""
    tool = next((tool for tool in reading.tools if tool.name == pending.tool), None)
    if tool is None or is_question(reading.text) or reading.text.rstrip().endswith("?"):
        return None
    known = _known(reading)
    filled = fill_arguments(tool, pending.about, known)
    if pending.kind == "confirm":
        if not is_agreeing(reading.text):
            return None
        return _ask(reading, tool, filled.missing) if filled.missing else Call(tool.name, filled.args)
    if choose_tool(reading.text, reading.tools) is not None or is_negated(reading.text):
        return None
    if len(filled.missing) == 1:
        return Call(tool.name, filled.args | {filled.missing[0]: _answered(reading, tool, filled.missing[0], known)})
    filled = fill_arguments(tool, f"{pending.about} {reading.text}", known)
    return _ask(reading, tool, filled.missing) if filled.missing else Call(tool.name, filled.args)


def _answered(reading: Reading, tool: OfferedTool, name: str, known: list[Known]) -> Any:
    """The one argument that was missing, from the user's answer."""
    text = reading.text.strip()
    said = facts.named(text) or next(iter(facts.quoted(text)), "")
    return said or fill_arguments(tool, f"{name}: {text}", known).args.get(name, text)


def _ask(reading: Reading, tool: OfferedTool, missing: list[str]) -> str:
    return say(reading.language, "need", tool=tool.name, what="; ".join(_described(reading, tool, missing)))


def _described(reading: Reading, tool: OfferedTool, names: list[str]) -> list[str]:
    """Parameters in the user's language: with the tool's own description only where that is in English as well."""
    if reading.language != "en":
        return [WORDS[reading.language].get(name, name) for name in names]
    described = {name: str(tool.properties.get(name, {}).get("description", "")) for name in names}
    return [f"{name} ({' '.join(text.split()).rstrip('.')})" if text else name for name, text in described.items()]


def _known(reading: Reading) -> list[Known]:
    return known_things([*reading.earlier, *reading.done])


def _was_made(reading: Reading, call: Call) -> bool:
    return any(done.tool == call.tool and done.args == call.args for done in reading.done)
