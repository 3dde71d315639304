"""The development sets: tools as the catalogue takes them, requests with the tools that each needs.

Seal-Tools (fairyshine/Seal-Tools, Apache-2.0): several tools a request, in 4,076 with parameters. MetaTool
(HowieHwong/MetaTool, MIT): one of 199, whose descriptions are a shop's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.memory.locomo import data_file

FILES = (
    "seal_tools.jsonl",
    "seal_dev.jsonl",
    "metatool_tools.json",
    "metatool_tools_extra.json",
    "metatool_single_dev.jsonl",
)


@dataclass(frozen=True, slots=True)
class BenchTool:
    """A tool to be found."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A request and the names of the tools that it needs."""

    text: str
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class ToolSet:
    """Tools and requests for them."""

    name: str
    tools: Sequence[BenchTool]
    requests: Sequence[Request]


def read_sets() -> list[ToolSet]:
    """Both sets. Raises FileNotFoundError with the name of the file that is missing."""
    files = {name: data_file(name) for name in FILES}
    for name, file in files.items():
        if file is None:
            raise FileNotFoundError(name)
    found: dict[str, Path] = {name: file for name, file in files.items() if file}
    return [_seal(found), _metatool(found)]


def _seal(files: dict[str, Path]) -> ToolSet:
    tools = [
        BenchTool(one["api_name"], one["api_description"], _schema(one["parameters"]))
        for one in _lines(files["seal_tools.jsonl"])
    ]
    requests = [
        Request(one["query"], frozenset(call["api"] for call in one["calling"]))
        for one in _lines(files["seal_dev.jsonl"])
    ]
    return ToolSet("Seal-Tools dev", tools, requests)


def _metatool(files: dict[str, Path]) -> ToolSet:
    described = _document(files["metatool_tools.json"]) | _document(files["metatool_tools_extra.json"])
    tools = [BenchTool(name, text, {"type": "object", "properties": {}}) for name, text in described.items()]
    requests = [Request(one["query"], frozenset([one["tool"]])) for one in _lines(files["metatool_single_dev.jsonl"])]
    return ToolSet("MetaTool single", tools, requests)


def _schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """The set's types (``str``, ``int``) are left out: search does not read them."""
    properties = {name: {"description": one.get("description", "")} for name, one in parameters.items()}
    return {"type": "object", "properties": properties}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _document(file: Path) -> dict[str, str]:
    return dict(json.loads(file.read_text(encoding="utf-8")))
