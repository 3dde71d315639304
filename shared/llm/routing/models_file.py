"""Reads ``models.yaml``: every fault is told with the file, the line and the entry; a changed file is read again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from shared.errors import SettingError
from shared.llm.routing.models import ModelTable
from shared.llm.routing.models_parse import EntryFault, parse_model_table
from shared.observability import Log

_LOOK_EVERY_S = 1.0
_log = Log("llm")

_Stamp = tuple[int, int, int]


class ModelFile:
    """The table in a file. A file that changes and is broken leaves the table as it was."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingError when the file is wrong."""
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._looked_at = clock()
        self._table = load_model_table(path)

    def table(self) -> ModelTable:
        """The table; at most once a second it is checked whether the file is another one by now."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            if (stamp := _stamp(self._path)) != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._table

    def _read_again(self) -> None:
        try:
            self._table = load_model_table(self._path)
            _log.info("the model table was read again", models=len(self._table.models))
        except SettingError as error:
            _log.warning("the changed model table is wrong, so the one before it stays", fault=str(error))


def load_model_table(path: Path) -> ModelTable:
    """Read and check the file. Raises SettingError that names the file, the line and the entry at fault."""
    try:
        document, lines = read_with_lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingError(f"DAARION_MODELS: cannot read {path}: {error}") from None
    except EntryFault as fault:
        raise SettingError(f"{path}:{fault.line}: {fault}") from None
    try:
        return parse_model_table(document)
    except EntryFault as fault:
        raise SettingError(f"{path}:{_line_of(fault.where, lines)}: {fault}") from None


def read_with_lines(text: str) -> tuple[Any, dict[str, int]]:
    """A YAML document, and the line (from 1) of every entry in it by its dotted name.

    Raises YAMLError for what is no YAML, EntryFault for a name that stands twice in one mapping (YAML would let the
    last one win in silence).
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        if node is not None:
            _note_lines(node, "", lines, ())
        return (loader.construct_document(node) if node is not None else None), lines
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, where: str, lines: dict[str, int], above: tuple[yaml.Node, ...]) -> None:
    lines.setdefault(where, node.start_mark.line + 1)
    if any(node is one for one in above):
        raise EntryFault(where, "refers to itself", node.start_mark.line + 1)
    inside = f"{where}." if where else ""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{inside}{key.value}"
            if name in lines:
                raise EntryFault(name, "stands here a second time", key.start_mark.line + 1)
            lines[name] = key.start_mark.line + 1
            _note_lines(value, name, lines, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, f"{inside}{index}", lines, (*above, node))


def _line_of(where: str, lines: dict[str, int]) -> int:
    """The entry's line, or that of the nearest entry around it."""
    while where and where not in lines:
        where = where.rpartition(".")[0]
    return lines.get(where, 1)


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
