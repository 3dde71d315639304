"""Decides what the offline provider answers: a tool call, or words. Deterministic and pure.

The order of things: a forced tool; what the user calls off or wants in short; each request of the turn; the results;
small talk; the conversation and memories; a search for what nothing else knows; and at last the plain statement that
there is nothing to go on.
"""

import re

from shared.llm.providers.offline.choice import is_about_the_past
from shared.llm.providers.offline.intent import is_cancelling, is_question
from shared.llm.providers.offline.json_mode import as_json, encoded, wants_json
from shared.llm.providers.offline.lexicon import ACTIONS, GREETINGS, HELP, RECALLING, REMEMBER, THANKS
from shared.llm.providers.offline.memory import is_personal, last_said, recall, tells_of_the_user
from shared.llm.providers.offline.phrases import say
from shared.llm.providers.offline.reading import Reading, read_request
from shared.llm.providers.offline.requests import Call, abilities, forced_tool, next_call, search_call
from shared.llm.providers.offline.results import tell
from shared.llm.providers.offline.summary import summarize
from shared.llm.providers.offline.words import words
from shared.wire.chat import ChatRequest

_COVERED = 0.5
"""A memory answers a question when it speaks of more than this share of its words."""
_QUOTED_CHARACTERS = 300

_REPLY = re.compile(
    r"^(?:please\s+)?(?:reply|respond|answer|say|відповідай|скажи|ответь)\b\s*"
    r"(?:with|only|exactly|just|лише|тільки|только|the words?|\s)*\s*[:\-]?\s*(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_HELP = re.compile(HELP, re.IGNORECASE)
_REMEMBER = re.compile(REMEMBER, re.IGNORECASE)

Reply = str | Call


def decide(request: ChatRequest) -> Reply:
    """The answer to a request: text, or one tool call."""
    reading = read_request(request)
    reply = forced_tool(reading) or _verbatim(reading) or _decided(reading)
    if wants_json(request) and isinstance(reply, str):
        return encoded(as_json(request, reply))
    return reply


def _verbatim(reading: Reading) -> str | None:
    """What the user dictates word for word."""
    if words(reading.text) == ["ping"]:
        return "pong"
    match = _REPLY.match(reading.text.strip()) if not reading.done else None
    return match.group(1).strip().strip("\"'“”«»`") or None if match else None


def _decided(reading: Reading) -> Reply:
    if is_cancelling(reading.text) or (reading.text.strip() and not reading.clauses):
        return _signed(reading, say(reading.language, "dropped"))
    if summary := summarize(reading.text):
        return _signed(reading, summary)
    reply = next_call(reading)
    return reply if isinstance(reply, Call) else _in_words(reading, reply)


def _in_words(reading: Reading, question: str | None) -> Reply:
    """Results first, then what is still to be said; without either, whatever else can be said."""
    if reading.done or question:
        told = tell([call for call in reading.done if call.has_result], reading.language)
        return _signed(reading, "\n".join(part for part in (told, question) if part))
    reply = _small_talk(reading) or _from_memory(reading) or search_call(reading) or _at_a_loss(reading)
    return reply if isinstance(reply, Call) else _signed(reading, reply)


def _small_talk(reading: Reading) -> str | None:
    said = words(reading.text)
    if said and set(said) & THANKS and not reading.tokens:
        return say(reading.language, "welcome")
    if _HELP.search(reading.text.strip()):
        return f"{say(reading.language, 'who')} {abilities(reading)}"
    if said and said[0] in GREETINGS and not set(reading.tokens) - GREETINGS:
        hello = say(reading.language, "hello")
        return f"{hello} {say(reading.language, 'who')} {abilities(reading)}" if reading.is_first else hello
    return None


def _from_memory(reading: Reading) -> str | None:
    """What the user said in this conversation, or else what the memories hold; None for what is no such question."""
    is_past = is_about_the_past(reading.text)
    if _REMEMBER.match(reading.text.strip()):
        return say(reading.language, "told")
    if not is_past and not is_question(reading.text) and not reading.text.rstrip().endswith("?"):
        return None
    if last := last_said(reading.tokens, reading.said):
        return say(reading.language, "said", text=last[:_QUOTED_CHARACTERS])
    found = _recalled(reading, is_past=is_past)
    if not found and (is_past or is_personal(reading.text)):
        return say(reading.language, "no_memory")
    return found or None


def _recalled(reading: Reading, *, is_past: bool) -> str:
    """The conversation's answer before that of the memories; both where the question names nothing in particular."""
    names_something = bool(set(reading.tokens) - ACTIONS - RECALLING)
    own = [*(clause for clause in reading.clauses if not is_about_the_past(clause)), *reading.said]
    said = own if names_something else list(filter(tells_of_the_user, own))
    answers: list[str] = []
    for phrase, texts, most in (("said", said, 1), ("memory", reading.memories, 3)):
        text, covered = recall(reading.tokens, texts, is_about_the_past=is_past, most=most)
        is_enough = covered > _COVERED or (is_past and phrase == "memory")
        if text and is_enough and not (answers and names_something):
            answers.append(say(reading.language, phrase, text=text))
    return "\n".join(answers)


def _at_a_loss(reading: Reading) -> str:
    is_statement = bool(reading.tokens) and not is_question(reading.text) and "?" not in reading.text
    if is_statement:
        return say(reading.language, "told" if tells_of_the_user(reading.text) else "noted")
    return " ".join([say(reading.language, "unclear"), abilities(reading), say(reading.language, "ask")])


def _signed(reading: Reading, text: str) -> str:
    """The first answer of a conversation says what gave it."""
    is_said = not reading.is_first or say(reading.language, "who") in text
    return text if is_said else f"{text}\n{say(reading.language, 'mark')}"
