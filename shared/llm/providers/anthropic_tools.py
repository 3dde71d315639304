"""OpenAI's tools and tool choice as Anthropic's."""

from typing import Any

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.wire.chat import ChatRequest, FunctionSpec

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def to_tools(request: ChatRequest) -> dict[str, Any]:
    """``tools`` and ``tool_choice``; nothing when the conversation has no tools.

    A conversation that holds calls must name tools even where none is offered any more, so those called before are
    named then, and may not be chosen.
    """
    if not request.tools:
        called = {call.function.name: None for message in request.messages for call in message.tool_calls or []}
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in called]
        return {"tools": tools, "tool_choice": {"type": "none"}} if tools else {}
    tools = [_tool(tool.function) for tool in request.tools]
    choice = tool_choice(request)
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    """The choice as Anthropic puts it; None leaves it to the model. Raises InvalidRequest or UnsupportedParameter."""
    parallel = (request.model_extra or {}).get("parallel_tool_calls")
    if parallel not in (None, True, False):
        raise InvalidRequest("parallel_tool_calls must be true or false", param="parallel_tool_calls")
    choice = _choice(request.tool_choice)
    if parallel is not False or (choice or {}).get("type") == "none":
        return choice
    return (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}


def _choice(asked: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if asked is None or isinstance(asked, str):
        return {"type": _CHOICES[asked]} if asked else None
    if asked.get("type") != "function":
        raise UnsupportedParameter(
            f"a tool_choice of type {asked.get('type')!r} is not supported by this model", param="tool_choice"
        )
    function = asked.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest("tool_choice must name a function", param="tool_choice.function.name")
    return {"type": "tool", "name": name}


def _tool(function: FunctionSpec) -> dict[str, Any]:
    extra = function.model_extra or {}
    tool: dict[str, Any] = {
        "name": function.name,
        "input_schema": {"type": "object", "properties": {}, **(function.parameters or {})},
    }
    if function.description:
        tool["description"] = function.description
    if extra.get("strict") is True:
        tool["strict"] = True
    if extra.get("cache_control"):
        tool["cache_control"] = extra["cache_control"]
    return tool
