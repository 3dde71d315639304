"""What the model is shown: instructions, memories, history. Pure."""

from collections.abc import Sequence
from typing import Any

MEMORIES_HEADING = "Relevant memories:"
CHANNEL_HEADING = "Said lately in this channel:"
LINE_CHARACTERS = 600


def build_messages(
    instructions: str, memories: Sequence[str], history: Sequence[dict[str, Any]], said: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One system message (instructions, then memories, then what was said in the channel) before the history.

    Both are quoted as data: one line each, so that recalled text cannot pose as a new section.
    """
    parts = [instructions.strip(), _quoted(MEMORIES_HEADING, memories), _quoted(CHANNEL_HEADING, said)]
    return [{"role": "system", "content": "\n\n".join(part for part in parts if part)}, *history]


def _quoted(heading: str, texts: Sequence[str]) -> str:
    lines = [f"- {' '.join(text.split())[:LINE_CHARACTERS]}" for text in texts]
    return "\n".join([heading, *lines]) if lines else ""


def text_of(message: dict[str, Any]) -> str:
    """A message's text, whether it is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or [] if part.get("text"))


def last_user_text(messages: Sequence[dict[str, Any]]) -> str:
    """What the user said last; empty when nothing."""
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")


def called_functions(messages: Sequence[dict[str, Any]]) -> set[str]:
    """The names of the functions that the model has called so far."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    return {call["function"]["name"] for call in calls if call.get("function")}


def unseen_messages(stored: Sequence[dict[str, Any]], sent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a request adds to a session. Clients may send only what is new, or the whole conversation again."""
    spoken = [_spoken(message) for message in stored if _is_spoken(message)]
    said_again = [_spoken(message) for message in sent if _is_spoken(message)]
    if spoken and said_again[: len(spoken)] == spoken and len(said_again) > len(spoken):
        positions = [index for index, message in enumerate(sent) if _is_spoken(message)]
        return list(sent[positions[len(spoken) - 1] + 1 :])
    return list(sent)


def _is_spoken(message: dict[str, Any]) -> bool:
    return message.get("role") in ("user", "assistant") and bool(text_of(message))


def _spoken(message: dict[str, Any]) -> tuple[str, str]:
    return str(message["role"]), text_of(message)
