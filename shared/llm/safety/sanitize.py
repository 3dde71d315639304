"""Takes secrets, hidden characters and false roles out of what goes to a model, and secrets out of what it answers.

``redact`` puts ``[redacted:kind]`` in a secret's place, ``refuse`` refuses the call, ``off`` changes nothing; lengths
hold in every mode. A changed request is a copy: what is stored in a session stays as it was said. Logs get kinds and
counts only.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from shared.errors import ApiError, ContextLengthExceeded, ErrorDetail, Internal, InvalidRequest
from shared.llm.safety.policy import SanitizePolicy
from shared.llm.safety.text import redactor, split_role_marks
from shared.observability import Log
from shared.wire.chat import ChatMessage, ChatRequest, ContentPart, ToolCall
from shared.wire.embeddings import EmbeddingRequest

NO_RETRY: Final = {"x-should-retry": "false"}
_MARKED_ROLES: Final = frozenset({"system", "developer", "user", "tool", "function"})
"""Whose text may come from elsewhere: the system message quotes memories. The assistant's own is the model's."""

_OPAQUE: Final = frozenset({"type", "id", "format", "detail", "data", "file_data", "signature", "thinking_blocks"})
"""Fields that are no prose: media and what a provider signed and wants back unchanged."""

_log = Log("llm")
Change = Callable[[str], str]


def sanitize_request(request: ChatRequest, policy: SanitizePolicy) -> ChatRequest:
    """The request as it may go out; the same object when nothing had to change.

    Raises ContextLengthExceeded, and in mode ``refuse`` InvalidRequest that names the places and kinds. Raises Internal
    when the checks themselves fail and the policy is fail-closed.
    """
    _check_lengths(list(map(_length, request.messages)), "messages", policy)
    if policy.mode == "off":
        return request
    try:
        return _sanitized(request, policy)
    except ApiError:
        raise
    except Exception as error:
        on_fault(error, policy)
        return request


def sanitize_inputs(request: EmbeddingRequest, policy: SanitizePolicy) -> EmbeddingRequest:
    """Texts to embed as they may go out; token ids, which are no text here, pass. Raises as ``sanitize_request``."""
    texts = [one for one in request.inputs() if isinstance(one, str)]
    _check_lengths(list(map(len, texts)), "input", policy)
    if policy.mode == "off" or not texts:
        return request
    found: Counter[str] = Counter()
    try:
        clean = list(map(redactor(policy, found), texts))
    except Exception as error:
        on_fault(error, policy)
        return request
    report("input", found, policy)
    return request if clean == texts else request.model_copy(update={"input": clean})


def sanitize_answer(message: dict[str, Any], policy: SanitizePolicy) -> dict[str, Any]:
    """A whole answer's message as it may go to the caller. Raises as ``sanitize_request`` does."""
    if not checks_answers(policy):
        return message
    found: Counter[str] = Counter()
    try:
        clean = change_message(message, redactor(policy, found))
    except Exception as error:
        on_fault(error, policy)
        return message
    report("answer", found, policy)
    return clean


def checks_answers(policy: SanitizePolicy) -> bool:
    """Whether answers are looked at. The log probabilities of such an answer must be left out: they spell it."""
    return policy.answers and policy.mode != "off"


def report(where: str, found: Counter[str], policy: SanitizePolicy) -> None:
    """Log what was found; raises InvalidRequest in mode ``refuse``."""
    if not found:
        return
    _log.info("sanitized", where=where, kinds=dict(found), mode=policy.mode)
    if policy.mode == "refuse":
        raise refusal(where, found, [])


def refusal(where: str, found: Counter[str], details: list[ErrorDetail]) -> InvalidRequest:
    """The error of mode ``refuse``: kinds and counts, no content."""
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.items()))
    message = f"the {where} contains what this policy keeps from passing: {kinds}"
    return InvalidRequest(message, param=details[0].path if details else None, details=details, headers=NO_RETRY)


def on_fault(error: Exception, policy: SanitizePolicy) -> None:
    """The checks failed: refuse the call, or with ``fail_closed`` off let it pass unchecked. Raises Internal."""
    _log.warning("sanitizing failed", error=type(error).__name__, fail_closed=policy.fail_closed)
    if policy.fail_closed:
        raise Internal("the call could not be checked for secrets and was refused", headers=NO_RETRY) from None


def change_message(message: dict[str, Any], change: Change) -> dict[str, Any]:
    """A message, or a part of one, with every text changed. The arguments of tool calls stay JSON."""
    changed = {name: value if name in _OPAQUE else change_leaves(value, change) for name, value in message.items()}
    if calls := message.get("tool_calls"):
        changed["tool_calls"] = [_change_call(call, change) for call in calls]
    return changed


def change_leaves(value: Any, change: Change) -> Any:
    """A JSON value with every text in it changed, but for media given as ``data:`` addresses."""
    if isinstance(value, str):
        return value if value.startswith("data:") else change(value)
    if isinstance(value, list):
        return [change_leaves(one, change) for one in value]
    if isinstance(value, dict):
        return {name: one if name in _OPAQUE else change_leaves(one, change) for name, one in value.items()}
    return value


def change_arguments(text: str, change: Change) -> str:
    """The argument text of a tool call with every text and whole number in it changed, still JSON if it was.

    The texts are changed by themselves and then once more as they stand, beside their names (``"password": "…"``).
    """
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return change(text)
    clean = _change_numbers(change_leaves(parsed, change), change)
    written = text if clean == parsed else orjson.dumps(clean).decode()
    changed = change(written)
    return changed if changed == written or _is_json(changed) else written


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _change_numbers(value: Any, change: Change) -> Any:
    if isinstance(value, list):
        return [_change_numbers(one, change) for one in value]
    if isinstance(value, dict):
        return {name: _change_numbers(one, change) for name, one in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return value if (text := change(str(value))) == str(value) else text
    return value


def _change_call(call: dict[str, Any], change: Change) -> dict[str, Any]:
    function = call.get("function") or {}
    return {**call, "function": {**function, "arguments": change_arguments(function.get("arguments") or "", change)}}


def _sanitized(request: ChatRequest, policy: SanitizePolicy) -> ChatRequest:
    found: Counter[str] = Counter()
    details: list[ErrorDetail] = []
    messages = []
    for index, message in enumerate(request.messages):
        here: Counter[str] = Counter()
        messages.append(_clean_message(message, redactor(policy, here)))
        details += [ErrorDetail(f"messages.{index}", f"{count} {kind}") for kind, count in sorted(here.items())]
        found += here
    if found:
        _log.info("sanitized", where="request", kinds=dict(found), mode=policy.mode)
    if found and policy.mode == "refuse":
        raise refusal("request", found, details)
    is_same = all(one is other for one, other in zip(messages, request.messages, strict=True))
    return request if is_same else request.model_copy(update={"messages": messages})


def _clean_message(message: ChatMessage, redact: Change) -> ChatMessage:
    """The message itself when it is clean, otherwise a copy."""

    def change(text: str) -> str:
        redacted = redact(text)
        return split_role_marks(redacted) if message.role in _MARKED_ROLES else redacted

    update: dict[str, Any] = _changed_fields(message.model_extra or {}, redact)
    if isinstance(message.content, str):
        update["content"] = change(message.content)
    elif message.content is not None:
        update["content"] = [_clean_part(part, change) for part in message.content]
    if message.tool_calls:
        update["tool_calls"] = [_clean_call(call, redact) for call in message.tool_calls]
    is_same = all(value == getattr(message, name) for name, value in update.items())
    return message if is_same else message.model_copy(update=update)


def _clean_part(part: ContentPart, change: Change) -> ContentPart:
    fields = {"text": part.text} if part.text else {}
    update = _changed_fields({**fields, **(part.model_extra or {})}, change)
    return part.model_copy(update=update) if update else part


def _changed_fields(fields: dict[str, Any], change: Change) -> dict[str, Any]:
    changed = {name: change_leaves(value, change) for name, value in fields.items() if name not in _OPAQUE}
    return {name: value for name, value in changed.items() if value != fields[name]}


def _clean_call(call: ToolCall, redact: Change) -> ToolCall:
    arguments = change_arguments(call.function.arguments, redact)
    if arguments == call.function.arguments:
        return call
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": arguments})})


def _check_lengths(lengths: Sequence[int], field: str, policy: SanitizePolicy) -> None:
    for index, length in enumerate(lengths):
        if length > policy.max_message_characters:
            raise ContextLengthExceeded(
                f"{field}.{index} has {length} characters; at most {policy.max_message_characters} are taken",
                param=f"{field}.{index}",
            )
    if sum(lengths) > policy.max_total_characters:
        raise ContextLengthExceeded(
            f"{field} has {sum(lengths)} characters; at most {policy.max_total_characters} are taken", param=field
        )


def _length(message: ChatMessage) -> int:
    content = message.content or ""
    spoken = len(content) if isinstance(content, str) else sum(len(part.text or "") for part in content)
    return spoken + sum(len(call.function.arguments) for call in message.tool_calls or [])
