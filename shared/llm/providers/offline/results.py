"""Puts tool results into words, for the offline provider. Pure."""

from typing import Any

import orjson

from shared.llm.providers.offline.lexicon import ACTIONS
from shared.llm.providers.offline.phrases import PHRASES, Language, name_of, say
from shared.llm.providers.offline.reading import Done
from shared.llm.providers.offline.words import overlap, tokens, words

_TITLES = ("name", "title", "label", "subject", "id")
_DETAILS = ("snippet", "description", "text", "summary", "content")
_SHOWN_ENTRIES = 10
_DETAIL_CHARACTERS = 300
_FITTING = 0.5
"""The share of a query's words that a passage must hold to be shown."""
_VALUES = ("result", "value", "answer", "output")


def tell(done: list[Done], language: Language) -> str:
    """What the calls of a turn came to, one paragraph each."""
    return "\n".join(_tell_one(call, language) for call in done)


def _tell_one(call: Done, language: Language) -> str:
    result = _unwrapped(call.result)
    if (reason := _failure(result)) is not None:
        return say(language, "failed", tool=call.tool, reason=reason)
    if isinstance(result, dict):
        return _tell_object(call, result, language)
    if isinstance(result, list):
        return _tell_list(call, "", result, language)
    if result in (None, "", True):
        return say(language, "done", tool=call.tool)
    return str(result) if isinstance(result, str) else say(language, "result", value=result)


def _unwrapped(result: Any) -> Any:
    """The payload of a result that only wraps one."""
    while isinstance(result, dict) and isinstance(result.get("result"), dict | list) and len(result) <= 6:
        if not _is_plain_wrapper(result):
            break
        result = result["result"]
    return result


def _is_plain_wrapper(result: dict[str, Any]) -> bool:
    return set(result) <= {"result", "status", "execution_id", "error", "ms", "cost_microusd"} and not result.get(
        "error"
    )


def _failure(result: Any) -> str | None:
    if not isinstance(result, dict):
        return None
    error = result.get("error")
    if isinstance(error, dict):
        return str(error.get("message") or error.get("code") or error)
    if error:
        return str(error)
    return str(result.get("message") or result["status"]) if result.get("status") in ("failed", "error") else None


def _tell_object(call: Done, result: dict[str, Any], language: Language) -> str:
    lists = [(key, value) for key, value in result.items() if isinstance(value, list)]
    if len(lists) == 1:
        return _tell_list(call, *lists[0], language)
    value = next((result[key] for key in _VALUES if not isinstance(result.get(key), dict | list | None)), None)
    if value is not None:
        return value if isinstance(value, str) else say(language, "result", value=value)
    name = next((result[key] for key in ("name", "title") if isinstance(result.get(key), str)), None)
    if name and "id" in result:
        action = next((token for token in tokens(call.tool) if token in ACTIONS and token in PHRASES[language]), "item")
        place = result.get("project")
        within = say(language, "within", name=place) if isinstance(place, str) else ""
        return say(language, action, name=name, id=result["id"], within=within)
    lines = [f"- {key}: {_scalar(value)}" for key, value in result.items()]
    return "\n".join(lines) if lines else say(language, "done", tool=call.tool)


def _tell_list(call: Done, key: str, entries: list[Any], language: Language) -> str:
    if not entries:
        return say(language, "empty", tool=call.tool)
    entries = [entry for entry in entries if _fits(call, entry)]
    if not entries:
        return say(language, "unfit", tool=call.tool)
    what = name_of(language, " ".join(words(key or call.tool))).capitalize()
    bullets = [_bullet(entry, language) for entry in entries[:_SHOWN_ENTRIES]]
    more = ["- …"] if len(entries) > _SHOWN_ENTRIES else []
    return "\n".join([say(language, "found", what=what, count=len(entries)), *bullets, *more])


def _fits(call: Done, entry: Any) -> bool:
    """Whether a passage holds enough of what was searched for, where the search says which words it ``matched``."""
    matched = entry.get("matched") if isinstance(entry, dict) else None
    query = call.args.get("query") if isinstance(call.args, dict) else None
    wanted = set(tokens(str(query or ""))) - ACTIONS
    if not isinstance(matched, list) or not wanted:
        return True
    return len(overlap(wanted, tokens(" ".join(map(str, matched))))) >= _FITTING * len(wanted)


def _bullet(entry: Any, language: Language) -> str:
    if not isinstance(entry, dict):
        return f"- {_scalar(entry)}"
    title = next((str(entry[key]) for key in _TITLES if entry.get(key)), None)
    detail = next((str(entry[key]) for key in _DETAILS if entry.get(key)), "")
    detail = " ".join(detail.split())[:_DETAIL_CHARACTERS]
    if title is None:
        return f"- {detail or _scalar(entry)}"
    notes = [str(entry[key]) for key in ("project", "state") if entry.get(key)]
    noted = f" ({', '.join(name_of(language, note) for note in notes)})" if notes else ""
    return f"- {title}{noted}: {detail}" if detail else f"- {title}{noted}"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
