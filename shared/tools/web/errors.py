"""How a request to the outside can end without an answer that is of use; ``ToolUncertain`` is the fifth way."""

from shared.tools.model import ToolFailed


class AddressRefused(ToolFailed):
    """The URL leads where tools may not go. Nothing was sent there."""


class NothingSent(ToolFailed):
    """No connection came about, so that the same again is safe."""

    def __init__(self, message: str, *, code: str = "tool_failed") -> None:
        super().__init__(message, code=code, is_transient=True)


class BusyService(ToolFailed):
    """The service answered 429, 502, 503 or 504: ``status`` says which, ``retry_after_s`` what it asked for."""

    def __init__(self, message: str, status: int, retry_after_s: float | None) -> None:
        super().__init__(message, is_transient=True, retry_after_s=retry_after_s)
        self.status = status


class UnusableAnswer(ToolFailed):
    """The service answered with ``status``, but with what cannot be read: too large, no JSON or text, too deep."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class CallerRefused(ToolFailed):
    """The service does not take the caller's credentials: ``status`` is 401 or 403."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, code="unauthorized")
        self.status = status
