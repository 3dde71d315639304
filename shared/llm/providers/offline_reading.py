"""Reads a chat request for the offline provider: the turn's text, what was done, the tools, the memories. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from shared.llm.providers.offline_expression import find_expression
from shared.llm.providers.offline_lexicon import ACTIONS, CLAUSE_WORDS, QUESTION
from shared.llm.providers.offline_phrases import PHRASES, Language
from shared.llm.providers.offline_words import language_of, tokens
from shared.wire.chat import ChatMessage, ChatRequest, ToolSpec

MEMORIES_HEADING = "Relevant memories:"
"""The line with which the agent loop begins the memories in its system message; each follows as ``- text``."""

_READ_CHARACTERS = 4000
"""Of the user's message and of each memory; rules find nothing in more, and patterns must stay quick."""

_MOST_CLAUSES = 8

_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|„[^“”]*[“”]|`[^`]*`')
_CLAUSE_WORD = re.compile(rf"(?:,\s*)?\b(?:{CLAUSE_WORDS})\b(?:,\s*)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
_NEED = [re.compile(re.escape(PHRASES[language]["need"].split("{tool}")[0]) + r"([\w.-]+)`") for language in PHRASES]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool of the request, with the words that it is known by."""

    name: str
    description: str
    parameters: dict[str, Any]
    name_tokens: frozenset[str]
    description_tokens: frozenset[str]
    parameter_tokens: frozenset[str]

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        """The schema of each parameter."""
        found = self.parameters.get("properties")
        entries = found.items() if isinstance(found, dict) else ()
        return {name: schema if isinstance(schema, dict) else {} for name, schema in entries}

    @property
    def required(self) -> list[str]:
        """The parameters it must have."""
        found = self.parameters.get("required")
        return [str(name) for name in found] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Done:
    """A tool call that was made, with its result once there is one."""

    tool: str
    args: Any
    result: Any = None
    has_result: bool = False


@dataclass
class Reading:
    """A request as the offline provider understands it."""

    request: ChatRequest
    text: str
    language: Language
    tools: list[OfferedTool]
    done: list[Done]
    earlier: list[Done]
    memories: list[str]
    asked_for: str | None = None
    asked_about: str = ""
    clauses: list[str] = field(default_factory=list)

    @cached_property
    def tokens(self) -> list[str]:
        """What the user's last message speaks of."""
        return tokens(self.text)


def read_request(request: ChatRequest) -> Reading:
    """Everything that the answer depends on."""
    last = max((index for index, message in enumerate(request.messages) if message.role == "user"), default=-1)
    text = text_of(request.messages[last])[:_READ_CHARACTERS] if last >= 0 else ""
    asked_for, asked_about = _open_question(request.messages[: max(last, 0)])
    return Reading(
        request=request,
        text=text,
        language=language_of(text),
        tools=[offered(spec) for spec in request.tools or ()],
        done=_calls(request.messages[last + 1 :]),
        earlier=_calls(request.messages[: last + 1]),
        memories=_memories(request.messages),
        asked_for=asked_for,
        asked_about=asked_about,
        clauses=clauses(text),
    )


def text_of(message: ChatMessage) -> str:
    """A message's text, its parts joined."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if part.text)


def clauses(text: str) -> list[str]:
    """The requests in a message: sentences, and parts of one joined by "and" that each start with something to do."""
    found: list[str] = []
    for sentence in _split_outside_quotes(_SENTENCE_END, text):
        parts = _split_outside_quotes(_CLAUSE_WORD, sentence)
        joiners = [sentence[left:right] for left, right in _spans(_CLAUSE_WORD, sentence)]
        found.append(parts[0])
        for joiner, part in zip(joiners, parts[1:], strict=True):
            if _is_request(part):
                found.append(part)
            else:
                found[-1] += joiner + part
    return [clause.strip() for clause in found if clause.strip()][:_MOST_CLAUSES]


def is_question(text: str) -> bool:
    """Whether a text asks for something to be told rather than done."""
    return re.search(QUESTION, text.strip(), re.IGNORECASE) is not None


def offered(spec: ToolSpec) -> OfferedTool:
    """A tool spec with its words."""
    function = spec.function
    parameters = function.parameters or {}
    properties = parameters.get("properties")
    described = properties.items() if isinstance(properties, dict) else ()
    words = [
        f"{name} {schema.get('description', '') if isinstance(schema, dict) else ''}" for name, schema in described
    ]
    return OfferedTool(
        name=function.name,
        description=function.description or "",
        parameters=parameters,
        name_tokens=frozenset(tokens(function.name)),
        description_tokens=frozenset(tokens(function.description or "")),
        parameter_tokens=frozenset(tokens(" ".join(words))),
    )


def _is_request(part: str) -> bool:
    """Whether a part of a sentence stands on its own: it begins with a tool's verb or asks something."""
    beginning = part.strip().split(" ")[:2]
    return is_question(part) or bool(find_expression(part)) or bool(ACTIONS & set(tokens(" ".join(beginning))))


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    inside = [match.span() for match in pattern.finditer(text)]
    return [span for span in inside if not any(left < span[0] < right for left, right in quoted)]


def _split_outside_quotes(pattern: re.Pattern[str], text: str) -> list[str]:
    parts, begin = [], 0
    for left, right in _spans(pattern, text):
        parts.append(text[begin:left])
        begin = right
    return [*parts, text[begin:]]


def _calls(messages: Sequence[ChatMessage]) -> list[Done]:
    results = {message.tool_call_id: text_of(message) for message in messages if message.role == "tool"}
    made = [call for message in messages for call in message.tool_calls or ()]
    return [
        Done(
            call.function.name,
            parse_json(call.function.arguments or "{}"),
            parse_json(results.get(call.id, "null")),
            call.id in results,
        )
        for call in made
    ]


def parse_json(text: str) -> Any:
    """The JSON in a text, or the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _memories(messages: Sequence[ChatMessage]) -> list[str]:
    found: list[str] = []
    for message in messages:
        lines = text_of(message).splitlines() if message.role in ("system", "developer") else []
        if MEMORIES_HEADING in lines:
            for line in lines[lines.index(MEMORIES_HEADING) + 1 :]:
                if not line.startswith("- "):
                    break
                found.append(line[2:].strip()[:_READ_CHARACTERS])
    return found


def _open_question(before: Sequence[ChatMessage]) -> tuple[str | None, str]:
    """The tool whose missing arguments our last answer asked for, and the request that it was about."""
    spoken = [message for message in before if message.role in ("user", "assistant") and text_of(message)]
    if len(spoken) < 2 or spoken[-1].role != "assistant":
        return None, ""
    answer = text_of(spoken[-1])
    for pattern in _NEED:
        if match := pattern.search(answer):
            about = next((text_of(message) for message in reversed(spoken[:-1]) if message.role == "user"), "")
            return match.group(1), about[:_READ_CHARACTERS]
    return None, ""
