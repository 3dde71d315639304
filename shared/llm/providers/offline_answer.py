"""Decides what the offline provider answers: a tool call, or words. Deterministic and pure.

The order of things: a forced tool; each request of the turn for which a tool fits; the results; memories; small talk; a
search for what nothing else knows; and at last the plain statement that there is nothing to go on.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from shared.llm.providers.offline_arguments import Filled, fill_arguments, known_things
from shared.llm.providers.offline_choice import choose_tool, is_about_the_past, score, searching_tool
from shared.llm.providers.offline_json import as_json, wants_json
from shared.llm.providers.offline_lexicon import ACTIONS, GREETINGS, HELP, PERSONAL, THANKS
from shared.llm.providers.offline_memory import recall
from shared.llm.providers.offline_phrases import say
from shared.llm.providers.offline_reading import OfferedTool, Reading, is_question, read_request
from shared.llm.providers.offline_results import tell
from shared.llm.providers.offline_words import overlap, tokens, words
from shared.wire.chat import ChatRequest

_COVERED = 0.5
"""The share of a question's words that a memory must speak of to answer it."""

_REPLY = re.compile(
    r"^(?:please\s+)?(?:reply|respond|answer|say|відповідай|скажи|ответь)\b\s*"
    r"(?:with|only|exactly|just|лише|тільки|только|the words?|\s)*\s*[:\-]?\s*(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_HOW = re.compile(r"^(?:how (?:do|can|to|should|would)|why|як|чому|навіщо|как|почему|зачем)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call."""

    tool: str
    args: dict[str, Any]


Reply = str | Call


def decide(request: ChatRequest) -> Reply:
    """The answer to a request: text, or one tool call."""
    reading = read_request(request)
    forced = _forced_tool(reading)
    if forced is not None:
        return forced
    reply = _next_call(reading) if _may_call(request) else None
    text = reply if isinstance(reply, Call) else _in_words(reading, reply)
    if wants_json(request) and isinstance(text, str):
        return orjson.dumps(as_json(request, text)).decode()
    return text


def _may_call(request: ChatRequest) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def _forced_tool(reading: Reading) -> Call | None:
    """The call that ``tool_choice`` insists on, unless it was made in this turn."""
    choice = reading.request.tool_choice
    if choice != "required" and not isinstance(choice, dict):
        return None
    name = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    offered = [tool for tool in reading.tools if name in (None, tool.name)]
    tool = choose_tool(reading.text, offered, at_least=0.0)
    if tool is None:
        return None
    call = Call(tool.name, fill_arguments(tool, reading.text, _known(reading), insist=True).args)
    return None if _was_made(reading, call) else call


def _next_call(reading: Reading) -> Reply | None:
    """The first request of the turn whose tool was not called yet; None when there is none left."""
    if reading.asked_for and (reply := _continued(reading)):
        return reply
    for clause in reading.clauses:
        tool = _tool_for(reading, clause)
        if tool is None:
            continue
        filled = fill_arguments(tool, clause, _known(reading))
        call = Call(tool.name, filled.args)
        if filled.missing:
            return _ask(reading, tool, filled)
        if not _was_made(reading, call):
            return call
    return None


def _continued(reading: Reading) -> Reply | None:
    """The call that our question was about, now that the user answered it."""
    tool = next((tool for tool in reading.tools if tool.name == reading.asked_for), None)
    if tool is None or reading.done or choose_tool(reading.text, reading.tools) is not None:
        return None
    missing = fill_arguments(tool, reading.asked_about, _known(reading)).missing
    if len(missing) == 1:
        together = f"{reading.asked_about.rstrip('.!? ')} {missing[0]}: {reading.text}"
        filled = fill_arguments(tool, reading.asked_about, _known(reading))
        answer = fill_arguments(tool, together, _known(reading)).args.get(missing[0], reading.text.strip())
        return Call(tool.name, filled.args | {missing[0]: answer})
    filled = fill_arguments(tool, f"{reading.asked_about} {reading.text}", _known(reading))
    return _ask(reading, tool, filled) if filled.missing else Call(tool.name, filled.args)


def _tool_for(reading: Reading, clause: str) -> OfferedTool | None:
    """The tool for one request, unless the memories say more about it than the tool can."""
    if is_about_the_past(clause) or (_HOW.search(clause) and not reading.done):
        return None
    tool = choose_tool(clause, reading.tools)
    if tool is None or not is_question(clause):
        return tool
    wanted = set(tokens(clause)) - ACTIONS
    known_to_tool = overlap(wanted, tool.name_tokens | tool.description_tokens)
    _, covered = recall(tokens(clause), reading.memories, is_about_the_past=False)
    remembers_more = bool(wanted) and covered > len(known_to_tool) / len(wanted) and score(clause, tool) < 10
    return None if remembers_more else tool


def _in_words(reading: Reading, question: str | None) -> Reply:
    """Results first, then what is still missing; without either, whatever else can be said."""
    if reading.done or question:
        told = tell([call for call in reading.done if call.has_result], reading.language)
        return "\n".join(part for part in (told, question, _mark(reading)) if part)
    return _small_talk(reading) or _from_memory(reading) or _search(reading) or _at_a_loss(reading)


def _small_talk(reading: Reading) -> str | None:
    text = reading.text.strip()
    said = words(text)
    if said == ["ping"]:
        return "pong"
    if match := _REPLY.match(text):
        return match.group(1).strip().strip("\"'“”«»`")
    if said and set(said) & THANKS and not reading.tokens:
        return f"{say(reading.language, 'welcome')} {_mark(reading)}"
    if re.search(HELP, text.lower()):
        return f"{say(reading.language, 'who')} {_abilities(reading)}"
    if said and said[0] in GREETINGS and not set(reading.tokens) - GREETINGS:
        return f"{say(reading.language, 'hello')} {say(reading.language, 'who')} {_abilities(reading)}"
    return None


def _from_memory(reading: Reading) -> str | None:
    is_past = is_about_the_past(reading.text)
    is_personal = re.search(PERSONAL, reading.text, re.IGNORECASE) is not None
    if not is_past and not is_question(reading.text) and not reading.text.rstrip().endswith("?"):
        return None
    found, covered = recall(reading.tokens, reading.memories, is_about_the_past=is_past)
    if found and (is_past or covered >= _COVERED):
        return f"{say(reading.language, 'memory', text=found)}\n{_mark(reading)}"
    return f"{say(reading.language, 'no_memory')} {say(reading.language, 'who')}" if is_past or is_personal else None


def _search(reading: Reading) -> Call | None:
    """Look a question up where the words themselves gave no tool."""
    tool = searching_tool(reading.tools) if _may_call(reading.request) and is_question(reading.text) else None
    if tool is None or not set(reading.tokens) - ACTIONS:
        return None
    filled = fill_arguments(tool, reading.text, _known(reading))
    return None if filled.missing else Call(tool.name, filled.args)


def _at_a_loss(reading: Reading) -> str:
    is_statement = bool(reading.tokens) and not is_question(reading.text) and "?" not in reading.text
    if is_statement:
        return f"{say(reading.language, 'noted')} {say(reading.language, 'who')}"
    found = say(reading.language, "unclear")
    return " ".join([found, say(reading.language, "who"), _abilities(reading), say(reading.language, "ask")])


def _ask(reading: Reading, tool: OfferedTool, filled: Filled) -> str:
    described = [(name, tool.properties.get(name, {}).get("description", "")) for name in filled.missing]
    what = "; ".join(f"{name} ({str(text).rstrip('.')})" if text else name for name, text in described)
    return say(reading.language, "need", tool=tool.name, what=what)


def _abilities(reading: Reading) -> str:
    if not reading.tools:
        return say(reading.language, "no_tools")
    return say(reading.language, "tools", names=", ".join(tool.name for tool in reading.tools))


def _mark(reading: Reading) -> str:
    return say(reading.language, "mark")


def _known(reading: Reading) -> list[Any]:
    return known_things([*reading.earlier, *reading.done])


def _was_made(reading: Reading, call: Call) -> bool:
    return any(done.tool == call.tool and done.args == call.args for done in reading.done)
