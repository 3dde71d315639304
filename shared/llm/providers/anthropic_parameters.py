"""OpenAI's parameters as Anthropic's, by one rule.

=================================================  ================================================================
parameter                                          becomes
=================================================  ================================================================
max_tokens, max_completion_tokens                  ``max_tokens``, which Anthropic demands; a configured number if none
stop                                               ``stop_sequences``
temperature (above 1 counts as 1), top_p, top_k    the same, for models that have them; for others 1 is left out
response_format json_schema                        ``output_config.format``
response_format json_object                        an instruction in the system prompt
reasoning_effort                                   ``thinking`` and, for models that think as they see fit, ``effort``
thinking, cache_control                            the same: Anthropic's own
user, safety_identifier                            ``metadata.user_id``
service_tier ``auto``, ``default``                 ``auto``, ``standard_only``
=================================================  ================================================================

What cannot change an answer (``_WITHOUT_EFFECT``), and what asks for what would happen anyway (``_NEUTRAL``), is left
out. Everything else is refused by name: to drop it in silence would answer another question than the one asked.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.llm.providers.anthropic_thinking import thinking
from shared.llm.providers.anthropic_versions import has_sampling
from shared.llm.providers.base import OWN_FIELDS
from shared.llm.providers.json_schema import closed
from shared.wire.chat import ChatRequest

_WITHOUT_EFFECT: Final = frozenset({"store", "prediction", "prompt_cache_key", "prompt_cache_retention"})
_READ_ELSEWHERE: Final = OWN_FIELDS | {"parallel_tool_calls", "reasoning_effort", "thinking"}
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "functions": ([],),
}
_SERVICE_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_JSON_ONLY: Final = "Answer with one JSON object and nothing else: no explanation and no code fence."


def to_parameters(request: ChatRequest, model: str, default_max_tokens: int) -> dict[str, Any]:
    """Every field of the body beside messages and tools; ``system`` is what a parameter adds to the system prompt.

    Raises InvalidRequest for a value of the wrong kind, UnsupportedParameter for what the model cannot do.
    """
    extra = {name: value for name, value in (request.model_extra or {}).items() if value is not None}
    limit = request.max_completion_tokens or request.max_tokens or default_max_tokens
    body: dict[str, Any] = {"max_tokens": limit} | thinking(request, extra, model, limit)
    if request.temperature is not None:
        body |= _sampling("temperature", min(request.temperature, 1.0), model)
    for name, value in extra.items():
        body = _merged(body, _translated(name, value, model))
    return body


def _translated(name: str, value: Any, model: str) -> dict[str, Any]:
    if name in _WITHOUT_EFFECT | _READ_ELSEWHERE or value in _NEUTRAL.get(name, ()):
        return {}
    if name in ("top_p", "top_k"):
        return _sampling(name, value, model)
    if translate := _TRANSLATIONS.get(name):
        return translate(value)
    raise UnsupportedParameter(f"{name} is not supported by this model", param=name)


def _merged(body: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """``output_config`` may come from two parameters."""
    if "output_config" in body and "output_config" in more:
        more = {"output_config": body["output_config"] | more["output_config"]}
    return body | more


def _sampling(name: str, value: Any, model: str) -> dict[str, Any]:
    if not isinstance(value, int | float):
        raise InvalidRequest(f"{name} must be a number", param=name)
    if name == "top_p" and value == 1:
        return {}  # older models refuse it beside temperature
    if has_sampling(model):
        return {name: value}
    if value == 1 and name == "temperature":
        return {}
    raise UnsupportedParameter(f"this model has no {name} other than its own", param=name)


def _stop(value: Any) -> dict[str, Any]:
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(one, str) for one in sequences):
        raise InvalidRequest("stop must be a text or a list of texts", param="stop")
    if any(not one.strip() for one in sequences):
        raise UnsupportedParameter("this model takes no stop sequence of blanks alone", param="stop")
    return {"stop_sequences": sequences} if sequences else {}


def _response_format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"system": [{"type": "text", "text": _JSON_ONLY}]}
    if kind != "json_schema":
        raise InvalidRequest(
            "response_format.type must be text, json_object or json_schema", param="response_format.type"
        )
    schema = value.get("json_schema")
    schema = schema.get("schema") if isinstance(schema, dict) else None
    if not isinstance(schema, dict):
        raise InvalidRequest("response_format.json_schema.schema must be an object", param="response_format")
    return {"output_config": {"format": {"type": "json_schema", "schema": closed(schema)}}}


def _user(value: Any) -> dict[str, Any]:
    return {"metadata": {"user_id": str(value)[:256]}}


def _service_tier(value: Any) -> dict[str, Any]:
    if not isinstance(value, str) or value not in _SERVICE_TIERS:
        raise UnsupportedParameter(f"service_tier {value!r} is not supported by this model", param="service_tier")
    return {"service_tier": _SERVICE_TIERS[value]}


def _cache_control(value: Any) -> dict[str, Any]:
    return {"cache_control": value}


_TRANSLATIONS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "stop": _stop,
    "response_format": _response_format,
    "user": _user,
    "safety_identifier": _user,
    "service_tier": _service_tier,
    "cache_control": _cache_control,
}
