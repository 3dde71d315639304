"""Fills a tool's arguments from a request's words and the tool's JSON schema, for the offline provider. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shared.llm.providers.offline import facts
from shared.llm.providers.offline.choice import EXPRESSION_NAMES, QUERY_NAMES
from shared.llm.providers.offline.expression import find_expression
from shared.llm.providers.offline.lexicon import ACTIONS, EFFECTS, NEGATION
from shared.llm.providers.offline.reading import Done, OfferedTool
from shared.llm.providers.offline.words import overlap, tokens, words

_NAME_WORDS = frozenset({"name", "title", "label", "subject", "heading", "назва", "название"})
_TEXT_WORDS = frozenset({"text", "content", "message", "body", "input", "prompt", "note", "query"})
_PLACE_WORDS = frozenset({"location", "city", "place", "country", "address", "town", "region"})
_RECIPIENT_NAMES = frozenset({"to", "recipient"})
_NO = frozenset({"no", "not", "false", "off", "without", "disable", "ні", "без", "нет", "не"})


@dataclass(frozen=True, slots=True)
class Known:
    """A thing that earlier results named: its id, its name and what kind it is."""

    id: str
    name: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Filled:
    """Arguments, and the required parameters that nothing was found for."""

    args: dict[str, Any]
    missing: list[str]


def fill_arguments(tool: OfferedTool, clause: str, known: Sequence[Known], *, insist: bool = False) -> Filled:
    """The arguments of a call. With ``insist`` a required text is the whole clause rather than missing."""
    args: dict[str, Any] = {}
    text = clause
    ordered = sorted(tool.properties.items(), key=lambda item: not _names_container(item[0], tool))
    for name, schema in ordered:
        if _names_container(name, tool):
            value, text = _contained(tool, name, text, known)
        else:
            value = _value(tool, name, schema, text)
        if value is None and name in tool.required:
            value = _fallback(schema, clause, insist=insist)
        if value is not None:
            args[name] = value
    return Filled(args, [name for name in tool.required if name not in args])


def refers_to_nothing(tool: OfferedTool, clause: str, known: Sequence[Known]) -> bool:
    """Whether something is to go "in it" and there is nothing that "it" could be."""
    kinds = {_kind(name) for name in tool.properties if _names_container(name, tool)}
    return bool(kinds) and facts.without_reference(clause)[0] and not any(kinds & thing.kinds for thing in known)


def known_things(calls: Sequence[Done]) -> list[Known]:
    """Everything with an id and a name in the results so far, newest first."""
    found = [thing for call in calls for thing in _things(call.result, frozenset(tokens(call.tool)) - ACTIONS)]
    return found[::-1]


def _things(value: Any, kinds: frozenset[str]) -> Iterator[Known]:
    if isinstance(value, list):
        for entry in value:
            yield from _things(entry, kinds)
    elif isinstance(value, dict):
        name = value.get("name") or value.get("title")
        if isinstance(value.get("id"), str) and isinstance(name, str):
            yield Known(value["id"], name, kinds)
        for key, entry in value.items():
            yield from _things(entry, kinds | frozenset(tokens(key)))


def _names_container(name: str, tool: OfferedTool) -> bool:
    """Whether a parameter says where the thing belongs: ``project`` or ``project_id`` of a tool that makes tasks."""
    kind = _kind(name)
    return bool(kind) and kind not in tool.name_tokens and not set(words(name)) & (_TEXT_WORDS | _PLACE_WORDS)


def _kind(name: str) -> str:
    """What a parameter such as ``project``, ``project_id`` or ``project_name`` refers to; empty for any other."""
    kind = next((word for word in tokens(name) if word != "id"), "")
    return kind if kind in ("project", "task", "document") or name.lower().endswith(("_id", "Id")) else ""


def _contained(tool: OfferedTool, name: str, text: str, known: Sequence[Known]) -> tuple[str | None, str]:
    kind = _kind(name)
    wants_id = name.lower().endswith("id")
    candidates = [thing for thing in known if kind in thing.kinds]
    asked, rest = _asked_container(tool, text, kind, candidates)
    if not asked:
        refers, shortened = facts.without_reference(text)
        return (candidates[0].id, shortened) if candidates and refers else (None, text)
    match = next((thing for thing in candidates if asked.lower() in (thing.name.lower(), thing.id.lower())), None)
    if match:
        return (match.id if wants_id else match.name), rest
    return (None if wants_id and not facts.IDENTIFIER.fullmatch(asked) else asked), rest


def _asked_container(tool: OfferedTool, text: str, kind: str, candidates: Sequence[Known]) -> tuple[str, str]:
    """The name of the thing something goes into, by the surest sign first, and the text without it."""
    is_listing = not EFFECTS & tool.name_tokens
    found = facts.known_container(text, [thing.name for thing in candidates])
    found = found if found[0] else facts.container(text, kind)
    return found if found[0] else facts.bare_container(text, is_listing=is_listing)


def _value(tool: OfferedTool, name: str, schema: dict[str, Any], text: str) -> Any:
    required = name in tool.required
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list):
        return _choice(schema["enum"], text)
    kind = schema.get("type")
    kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
    if kind in ("integer", "number"):
        return _number(name, text, is_whole=kind == "integer", required=required)
    if kind == "boolean":
        return _flag(name, text, required=required)
    if kind == "array":
        return _items(schema, text) if required else None
    if kind in ("string", None):
        return _text(tool, name, schema, text)
    return None


def _text(tool: OfferedTool, name: str, schema: dict[str, Any], text: str) -> str | None:
    said = set(words(name))
    is_required = name in tool.required
    if name.lower() in EXPRESSION_NAMES:
        return find_expression(text) or None
    if found := _patterned(name, schema, text):
        return found
    if name.lower() in _RECIPIENT_NAMES and (found := facts.recipient(text)):
        return found
    if said & _PLACE_WORDS:
        return facts.place(text) or (next(iter(facts.quoted(text)), None) if is_required else None)
    if not is_required:
        return _stated(name, text)
    if name.lower() in QUERY_NAMES:
        return next(iter(facts.quoted(text)), "") or facts.topic(text) or None
    stated = _stated(name, text)
    named = facts.named(text)
    if named is not None:
        return stated or named or None
    found = stated or next(iter(facts.quoted(text)), "") or facts.after_colon(text)
    if said & _NAME_WORDS:
        return found or facts.after_noun(text, tool.name_tokens - ACTIONS) or None
    return found or (text.strip() if said & _TEXT_WORDS else None) or None


def _patterned(name: str, schema: dict[str, Any], text: str) -> str:
    """Texts that have a form of their own: e-mail addresses, URLs, dates, ids."""
    wanted = {str(schema.get("format")), *name.lower().replace("-", "_").split("_")}
    patterns = (
        ({"email", "e_mail"}, facts.EMAIL),
        ({"uri", "url", "link", "href"}, facts.URL),
        ({"date", "date-time", "datetime", "day", "due"}, facts.DATE),
        ({"id"}, facts.IDENTIFIER),
    )
    found = [pattern.search(text) for names, pattern in patterns if names & wanted]
    return next((match.group() for match in found if match), "")


def _stated(name: str, text: str) -> str | None:
    """What follows the parameter's own name: ``description: …``, ``with description "…"``."""
    value = facts.labelled(text, name)
    return value or None


def _choice(options: list[Any], text: str) -> Any:
    """The option that a text names; the other one of two where it says "not"."""
    said = tokens(text)
    lowered = text.lower()
    for option in options:
        if not isinstance(option, str | int | float):
            continue
        word = str(option).lower()
        if word in lowered.split() or (tokens(word) and len(overlap(tokens(word), said)) == len(set(tokens(word)))):
            is_refused = len(options) == 2 and re.search(rf"{NEGATION}\s+{re.escape(word)}", lowered)
            return next((other for other in options if other != option), option) if is_refused else option
    return None


def _number(name: str, text: str, *, is_whole: bool, required: bool) -> int | float | None:
    found = facts.number_beside(text, name)
    if found is None and required:
        found = next(iter(facts.numbers(text)), None)
    return int(found) if found is not None and is_whole else found


def _flag(name: str, text: str, *, required: bool) -> bool | None:
    said = text.lower().split()
    if overlap(tokens(name), tokens(text)):
        return not _NO & set(said)
    return not _NO & set(said) if required else None


def _items(schema: dict[str, Any], text: str) -> list[Any] | None:
    entry = schema.get("items")
    kind = entry.get("type") if isinstance(entry, dict) else None
    if kind in ("integer", "number"):
        return facts.numbers(text) or None
    listed = [part.strip() for part in facts.after_colon(text).split(",") if part.strip()]
    return facts.quoted(text) or listed or None


def _fallback(schema: dict[str, Any], clause: str, *, insist: bool) -> Any:
    """A required parameter that the words do not give: its default, or whatever a forced call can do."""
    if "default" in schema:
        return schema["default"]
    if not insist:
        return None
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    simple: dict[str, Any] = {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
    return simple.get(kind if isinstance(kind, str) else "string", clause)
