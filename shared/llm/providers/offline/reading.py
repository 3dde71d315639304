"""Reads a chat request for the offline provider: the turn's text, what was done, the tools, the memories. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from shared.llm.providers.offline.expression import find_expression
from shared.llm.providers.offline.intent import action_of, is_cancelling, is_question
from shared.llm.providers.offline.lexicon import ACTIONS, CLAUSE_WORDS, WITH_TASK
from shared.llm.providers.offline.phrases import Language, patterns
from shared.llm.providers.offline.words import QUOTED, language_of, tokens
from shared.wire.chat import ChatMessage, ChatRequest, ToolSpec

MEMORIES_HEADING = "Relevant memories:"
"""The line with which the agent loop begins the memories in its system message; each follows as ``- text``."""

_READ_CHARACTERS = 4000
"""Of the user's message and of each memory; rules find nothing in more, and patterns must stay quick."""

_MOST_CLAUSES = 8

_CLAUSE_WORD = re.compile(rf"(?:,\s*)?\b(?:{CLAUSE_WORDS})\b(?:,\s*)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<!:)\s*\n+")
_WITH_TASK = re.compile(WITH_TASK, re.IGNORECASE)
_OUR_QUESTIONS = {"need": patterns("need"), "confirm": patterns("confirm")}
_OUR_SIGNATURES = patterns("mark")


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


@dataclass(frozen=True, slots=True)
class Pending:
    """What our last answer asked: for missing arguments of a tool, or (``confirm``) whether to use it."""

    kind: str
    tool: str
    about: str


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
    said: list[str]
    """The user's earlier messages in this conversation, newest first."""
    is_first: bool
    """Whether we have said nothing in this conversation yet."""
    pending: Pending | None = None
    clauses: list[str] = field(default_factory=list)

    @cached_property
    def tokens(self) -> list[str]:
        """What the user's last message speaks of."""
        return tokens(self.text)


def read_request(request: ChatRequest) -> Reading:
    """Everything that the answer depends on."""
    last = max((index for index, message in enumerate(request.messages) if message.role == "user"), default=-1)
    text = text_of(request.messages[last])[:_READ_CHARACTERS] if last >= 0 else ""
    before = request.messages[: max(last, 0)]
    said = [text_of(message)[:_READ_CHARACTERS] for message in reversed(before) if message.role == "user"]
    return Reading(
        request=request,
        text=text,
        language=language_of(text, said),
        tools=[offered(spec) for spec in request.tools or ()],
        done=_calls(request.messages[last + 1 :]),
        earlier=_calls(request.messages[: last + 1]),
        memories=_memories(request.messages),
        said=said,
        is_first=not any(message.role == "assistant" and text_of(message) for message in request.messages),
        pending=_open_question(before),
        clauses=clauses(text),
    )


def text_of(message: ChatMessage) -> str:
    """A message's text, its parts joined."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if part.text)


def clauses(text: str) -> list[str]:
    """The requests in a message: sentences, and parts of one joined by "and" that each start with something to do.

    Figures on their own belong to the sentence before them. What the user calls off again is left out.
    """
    found: list[str] = []
    for sentence in _split_outside_quotes(_SENTENCE_END, text):
        if is_cancelling(sentence):
            found.clear()
        elif found and not tokens(re.sub(r"[\W\d_]", " ", sentence)):
            found[-1] += f" {sentence}"
        else:
            found += (part for joined in _joined(sentence) for part in _with_task(joined))
    return [clause.strip() for clause in found if clause.strip()][:_MOST_CLAUSES]


def _joined(sentence: str) -> list[str]:
    """A sentence's parts, split where "and" or its like begins a new request."""
    parts = _split_outside_quotes(_CLAUSE_WORD, sentence)
    joiners = [sentence[left:right] for left, right in _spans(_CLAUSE_WORD, sentence)]
    found = parts[:1]
    for joiner, part in zip(joiners, parts[1:], strict=True):
        if _is_request(part):
            found.append(part)
        else:
            found[-1] += joiner + part
    return found


def _with_task(clause: str) -> list[str]:
    """``create a project X with a task to do Y`` as two requests, the second about what the first makes."""
    spans = _spans(_WITH_TASK, clause) if action_of(clause) == "create" else []
    if not spans or "task" in tokens(clause[: spans[0][0]]):
        return [clause]
    left, right = spans[0]
    verb, place = ("create a", "in it") if clause[right:].isascii() else ("створи", "в ньому")
    return [clause[:left], f"{verb} {clause[right:].rstrip(' .!')} {place}"]


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
    is_sum = any(letter.isalpha() for letter in part) and bool(find_expression(part))
    return is_question(part) or is_sum or bool(ACTIONS & set(tokens(" ".join(beginning))))


def _spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    quoted = [match.span() for match in QUOTED.finditer(text)]
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


def _open_question(before: Sequence[ChatMessage]) -> Pending | None:
    """The question that our last answer ended with; a question that an answer only quotes is none."""
    spoken = [message for message in before if message.role in ("user", "assistant") and text_of(message)]
    if len(spoken) < 2 or spoken[-1].role != "assistant":
        return None
    lines = [line for line in text_of(spoken[-1]).splitlines() if not _matches(_OUR_SIGNATURES, line)]
    for kind, known in _OUR_QUESTIONS.items():
        if lines and (match := _matches(known, lines[-1])):
            about = next((text_of(message) for message in reversed(spoken[:-1]) if message.role == "user"), "")
            return Pending(kind, match["tool"], about[:_READ_CHARACTERS])
    return None


def _matches(known: Sequence[re.Pattern[str]], line: str) -> re.Match[str] | None:
    return next((match for pattern in known if (match := pattern.fullmatch(line))), None)
