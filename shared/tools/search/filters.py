"""Which tools a query may find at all, before anything is ranked. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from shared.tools.model import CONFIDENTIAL_RISKS
from shared.tools.search.model import ToolQuery

if TYPE_CHECKING:
    from numpy.typing import NDArray

RISKS: Final = "ABCD"
_CONFIDENTIAL: Final = max(RISKS.index(risk) for risk in CONFIDENTIAL_RISKS)


@dataclass(frozen=True, slots=True)
class Entry:
    """An active tool at its active version. ``environments`` is empty for all."""

    entry: int
    id: str
    name: str
    risk: str
    executor: str
    environments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facets:
    """What tools are filtered by: places by name, by executor and by environment, and each one's risk (0 to 3)."""

    names: dict[str, int]
    risks: "NDArray[np.int8]"
    executors: "dict[str, NDArray[np.intp]]"
    bound: tuple[tuple[int, tuple[str, ...]], ...]


class Permitted(NamedTuple):
    """Places of tools, ascending: those that are shown in any case, and those to choose from."""

    required: "NDArray[np.intp]"
    others: "NDArray[np.intp]"


def facets_of(tools: Sequence[Entry]) -> Facets:
    """The facets of tools, in their order."""
    executors: dict[str, list[int]] = {}
    for place, tool in enumerate(tools):
        executors.setdefault(tool.executor, []).append(place)
    return Facets(
        names={tool.name: place for place, tool in enumerate(tools)},
        risks=np.array([RISKS.index(tool.risk) for tool in tools], np.int8),
        executors={name: np.array(places, np.intp) for name, places in executors.items()},
        bound=tuple((place, tool.environments) for place, tool in enumerate(tools) if tool.environments),
    )


def permitted(facets: Facets, granted: "NDArray[np.intp]", query: ToolQuery, profile: str) -> Permitted:
    """Those of the ``granted`` places that the query and the environment permit."""
    mask = np.zeros(len(facets.risks), np.bool_)
    mask[granted] = True
    mask &= facets.risks <= RISKS.index(query.risk_max)
    if query.confidential:
        mask &= facets.risks <= _CONFIDENTIAL
    mask[[place for place, environments in facets.bound if profile not in environments]] = False
    mask[_places(facets, query.deny)] = False
    if query.executors:
        known = [facets.executors[name] for name in query.executors if name in facets.executors]
        mask &= _only(len(mask), np.concatenate(known) if known else np.empty(0, np.intp))
    required = [place for place in _places(facets, query.required) if mask[place]]
    if query.allow:
        mask &= _only(len(mask), np.array(_places(facets, query.allow), np.intp))
    mask[required] = False
    return Permitted(np.array(sorted(required), np.intp), np.flatnonzero(mask))


def _places(facets: Facets, names: Collection[str]) -> list[int]:
    return [facets.names[name] for name in dict.fromkeys(names) if name in facets.names]


def _only(size: int, places: "NDArray[np.intp]") -> "NDArray[np.bool_]":
    mask = np.zeros(size, np.bool_)
    mask[places] = True
    return mask
