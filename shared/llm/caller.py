"""Who a model call is for, and what is said about it on the way in and out."""

from dataclasses import dataclass, field

from shared.llm.safety.policy import SanitizePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The tenant that pays, and what in it made the call.

    ``blueprint`` is the code of the agent's blueprint; ``sanitize`` is what that blueprint wants checked, None for the
    platform's default. Answers to a ``confidential`` call are never kept.
    """

    microdao_id: str
    agent_id: str | None = None
    key_id: str | None = None
    session_id: str | None = None
    flow_id: str | None = None
    blueprint: str | None = None
    sanitize: SanitizePolicy | None = None
    confidential: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHints:
    """What a client says of its own waiting and retrying.

    ``patience_s``: it gives up after so long (openai's clients: ``x-stainless-read-timeout``). ``is_retry``: it asks
    again after a failure (``x-stainless-retry-count`` above 0); its tries and ours must not multiply.
    """

    patience_s: float | None = None
    is_retry: bool = False


@dataclass(slots=True)
class CallReport:
    """What there is to tell about a call beside its answer, as response headers. Filled in while the call goes on."""

    headers: dict[str, str] = field(default_factory=dict)
