"""``reasoning_effort`` as Anthropic's ``thinking``.

Source: platform.claude.com/docs/en/build-with-claude/extended-thinking and …/adaptive-thinking.
"""

from typing import Any, Final

from shared.errors import InvalidRequest
from shared.llm.providers.anthropic_tools import tool_choice
from shared.llm.providers.anthropic_versions import has_extra_effort, hides_thinking, thinks_adaptively
from shared.wire.chat import ChatRequest

_EFFORTS: Final = {"none": "none", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_BUDGETS: Final = {"low": 1024, "medium": 4096, "high": 16384, "xhigh": 32768}
_LEAST_BUDGET: Final = 1024
_LEAST_ANSWER: Final = 256
"""Tokens left for the answer itself when thinking is given a budget: both come out of ``max_tokens``."""


def thinking(request: ChatRequest, extra: dict[str, Any], model: str, max_tokens: int) -> dict[str, Any]:
    """``thinking`` and ``output_config``, or nothing. The caller's own ``thinking`` goes first."""
    if "thinking" in extra:
        if not isinstance(extra["thinking"], dict):
            raise InvalidRequest("thinking must be an object with a type", param="thinking")
        return {"thinking": extra["thinking"]}
    asked = extra.get("reasoning_effort")
    if asked is None:
        return {}
    if not isinstance(asked, str) or asked not in _EFFORTS:
        raise InvalidRequest(f"reasoning_effort must be one of {', '.join(_EFFORTS)}", param="reasoning_effort")
    effort = _EFFORTS[asked]
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    return _adaptive(effort, model) if thinks_adaptively(model) else _budgeted(request, effort, max_tokens)


def _adaptive(effort: str, model: str) -> dict[str, Any]:
    shown = {"display": "summarized"} if hides_thinking(model) else {}
    known = "high" if effort == "xhigh" and not has_extra_effort(model) else effort
    return {"thinking": {"type": "adaptive"} | shown, "output_config": {"effort": known}}


def _budgeted(request: ChatRequest, effort: str, max_tokens: int) -> dict[str, Any]:
    """Effort is a hint, so where the model would refuse to think it does without."""
    budget = min(_BUDGETS[effort], max_tokens - _LEAST_ANSWER)
    if budget < _LEAST_BUDGET or _is_forced(request) or _lacks_thinking(request):
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _is_forced(request: ChatRequest) -> bool:
    """A model that must call a tool may not think first."""
    return bool(request.tools) and (tool_choice(request) or {}).get("type") in ("any", "tool")


def _lacks_thinking(request: ChatRequest) -> bool:
    """An answer whose calls have just been answered must begin with the thinking that led to them."""
    answers = [message for message in request.messages if message.role == "assistant"]
    if not answers or not answers[-1].tool_calls:
        return False
    return not (answers[-1].model_extra or {}).get("thinking_blocks")
