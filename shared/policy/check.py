"""Is this text a policy that a microDAO may have? Pure functions."""

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cedarpy import PolicySet, Schema, validate_policies

from shared.policy.decision import named_actions
from shared.policy.roles import ACTION_GROUPS, GOVERNED, GRANTABLE
from shared.settings import CONFIG_DIR

MAX_CHARACTERS: Final = 4_000
MAX_BRACKETS: Final = 32
MAX_IFS: Final = 16
MAX_OPERATORS: Final = 100
RESOURCE_KINDS: Final = ("MicroDao", "Agent", "Session", "Flow", "Model", "Team", "Grant", "Key", "Policy", "Tool")

_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|\w+|::|&&|\|\||[=!<>]=|\S', re.DOTALL)
_MAX_MESSAGE: Final = 300
_UNFINISHED = "unexpected end of input"
_OF_POLICY = re.compile(r"^for policy `[^`]*`, ")
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and in which line (from 1)."""

    line: int
    message: str


def find_faults(source: str) -> list[Fault]:
    """What keeps this text from being a policy of a microDAO; empty when nothing does."""
    if fault := _size_fault(source):
        return [fault]
    try:
        parsed = PolicySet.from_str(source).to_pst()
    except ValueError as error:
        return [Fault(_line_of_syntax(source, str(error)), str(error).removeprefix("cedarpy: "))]
    if parsed.templates:
        return [Fault(_line_of(source, "?"), "a template is no policy; name the principal and the resource")]
    if len(parsed.static_policies) != 1:
        return [Fault(1, f"one policy at a time; this text has {len(parsed.static_policies)}")]
    found = validate_policies(source, schema()).errors
    return [_schema_fault(source, one.error) for one in found] or _reach_faults(source, parsed)


def _size_fault(source: str) -> Fault | None:
    """Cedar's parser goes as deep as the text does and, unlike ours, has no limit but the process's stack.

    Counted over the whole text, strings and comments too: what counts must not hang on reading it as Cedar does.
    """
    counts = (
        (len(source), MAX_CHARACTERS, "characters"),
        (sum(source.count(one) for one in "([{"), MAX_BRACKETS, "opening brackets"),
        (len(re.findall(r"\bif\b", source)), MAX_IFS, "ifs"),
        (sum(source.count(one) for one in ".+-*&|!<>="), MAX_OPERATORS, "operators and dots"),
    )
    for count, limit, what in counts:
        if count > limit:
            return Fault(1, f"a policy has at most {limit} {what}; this one has {count}")
    return Fault(1, "a policy cannot hold the character U+0000") if "\0" in source else None


def _line_of_syntax(source: str, message: str) -> int:
    """Where the parser stopped, which it does not tell: after the longest beginning that only lacks an end."""
    ends = [token.end() for token in _TOKEN.finditer(source)]
    stopped = bisect_left(ends, True, key=lambda end: not _is_beginning(source[:end]))
    if stopped >= len(ends) - 1:
        return _line_of(source, message)
    return source.count("\n", 0, ends[stopped]) + 1


def _is_beginning(source: str) -> bool:
    try:
        PolicySet.from_str(source)
    except ValueError as error:
        return _UNFINISHED in str(error)
    return True


def _line_of(source: str, message: str) -> int:
    """The first line that holds what the message quotes; else the last."""
    for name in _QUOTED.findall(message) or [message]:
        for number, line in enumerate(source.split("\n"), start=1):
            if name in line:
                return number
    return max(1, source.rstrip().count("\n") + 1)


def _schema_fault(source: str, error: str) -> Fault:
    message = _OF_POLICY.sub("", error)[:_MAX_MESSAGE]
    return Fault(_line_of(source, message), message)


def _reach_faults(source: str, parsed: Any) -> list[Fault]:
    """A policy that names only actions which it cannot decide would mislead."""
    (policy,) = parsed.static_policies.values()
    named = named_actions(policy.action)
    reachable = GRANTABLE if policy.effect == "permit" else GOVERNED
    if named is None or named & reachable:
        return []
    line = _line_of(source, "Action")
    return [Fault(line, f"a microDAO's own policy cannot {policy.effect} {', '.join(sorted(named)) or 'this'}")]


@cache
def schema_text() -> str:
    """The Cedar schema of all that policies may speak of."""
    head = (CONFIG_DIR / "policies.cedarschema").read_text(encoding="utf-8")
    groups = sorted({group for groups in ACTION_GROUPS.values() for group in groups})
    declared = "\n".join(f'action "{group}";' for group in groups)
    return f"{head}\n{declared}\n" + "".join(map(_declaration, ACTION_GROUPS))


@cache
def schema() -> Schema:
    """The same, parsed."""
    return Schema.from_str(schema_text())


def _declaration(action: str) -> str:
    kinds, context = (("Tool",), "ToolCall") if action == "tool.invoke" else (RESOURCE_KINDS, "Call")
    groups = ", ".join(f'"{group}"' for group in ACTION_GROUPS[action])
    return (
        f'action "{action}" in [{groups}] appliesTo {{'
        f" principal: Principal, resource: [{', '.join(kinds)}], context: {context} }};\n"
    )
