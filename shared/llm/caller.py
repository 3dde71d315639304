"""Who a model call is for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The tenant that pays, and what in it made the call."""

    microdao_id: str
    agent_id: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    flow_id: str | None = None
