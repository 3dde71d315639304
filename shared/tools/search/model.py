"""What tool search speaks of. Plain data, no I/O."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from shared.tools.model import Risk

DEFAULT_K: Final = 8
MOST_K: Final = 100
MOST_CHARACTERS: Final = 4000
"""What is read of a request; the rest is not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolQuery:
    """A request for the ``k`` best of the tools that an agent was granted.

    ``allow`` and ``deny`` name tools; an empty ``allow`` or ``executors`` is all of them. Tools in ``required`` come
    first and do not count into ``k``. ``confidential`` leaves tools of risk A and B only.
    """

    microdao_id: str
    agent_id: str
    text: str
    k: int = DEFAULT_K
    risk_max: Risk = "D"
    executors: Collection[str] = ()
    allow: Collection[str] = ()
    deny: Collection[str] = ()
    required: Collection[str] = ()
    confidential: bool = False


class FoundTool(NamedTuple):
    """A tool for a request; ``score`` is about 0 for one that has nothing to do with it and about 1 for one that fits.

    ``why`` is ``required``, ``found``, or ``allowed``: nothing was found and it is of the allowlist.
    """

    id: str
    name: str
    score: float
    why: Literal["required", "found", "allowed"]


class Found(NamedTuple):
    """The answer to a query, best first after the required ones, and how many tools it was chosen from."""

    tools: Sequence[FoundTool]
    permitted: int


class IndexToolsJob(NamedTuple):
    """A delivery of a job to index tools; ``message_id`` is delivered again if that fails."""

    message_id: str
    job_id: str
    microdao_id: str
    tool_ids: tuple[str, ...]
