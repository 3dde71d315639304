"""What an import found, before anything is written. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from shared.tools.catalogue.definition import Definition, canonical_hash

Outcome = Literal["made", "unchanged", "changed", "vanished", "found", "skipped"]
"""``changed`` and ``vanished`` tools are disabled until approved; ``found`` are new there and were not asked for."""

SOURCE_FIELDS: Final = ("description", "parameters", "executor", "config", "idempotent", "result_schema")
"""What the source says of a tool; all else is the administrator's and survives a change there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A tool as its source describes it. ``source_name`` is its identity there, ``name`` what we would call it."""

    source_name: str
    name: str
    definition: Definition
    note: str = ""

    @property
    def source_hash(self) -> str:
        """The identity of what the source says."""
        return canonical_hash([self.name, *(getattr(self.definition, one) for one in SOURCE_FIELDS)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a source holds. ``skipped`` are (source name, reason)."""

    title: str
    candidates: Sequence[Candidate]
    skipped: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of one tool."""

    source_name: str
    name: str | None
    outcome: Outcome
    reason: str = ""
    tool_id: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an import did, or would do. ``import_id`` is None for a dry run of a new source."""

    title: str
    lines: Sequence[Line]
    import_id: str | None = None
    dry_run: bool = False
    requires: Sequence[str] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """For an answer: the lines and how many there are of each outcome."""
        counts: dict[str, int] = {}
        for line in self.lines:
            counts[line.outcome] = counts.get(line.outcome, 0) + 1
        return {
            "import_id": self.import_id,
            "title": self.title,
            "dry_run": self.dry_run,
            "counts": counts,
            "requires": list(self.requires),
            "tools": [
                {
                    "source_name": line.source_name,
                    "name": line.name,
                    "outcome": line.outcome,
                    "reason": line.reason or None,
                    "tool_id": line.tool_id,
                    "version": line.version,
                }
                for line in self.lines
            ],
        }
