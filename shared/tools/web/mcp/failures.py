"""What it means when a conversation with a server fails."""

import httpx2
from mcp import MCPError
from mcp.types import CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT
from pydantic import ValidationError

from shared.tools.model import ToolFailed
from shared.tools.web.answers import BUSY, retry_after_s
from shared.tools.web.client import lost, told
from shared.tools.web.errors import BusyService, CallerRefused, UnusableAnswer
from shared.tools.web.mcp.session import RemoteServer
from shared.tools.web.mcp.talk import Talk
from shared.tools.web.transport import AnswerRefused

_NO_ANSWER = (CONNECTION_CLOSED, REQUEST_TIMEOUT, PARSE_ERROR)


def failure(error: Exception, server: RemoteServer, talk: Talk) -> ToolFailed:
    """The failure that an error stands for. Raises the error itself if it is none of the outside's."""
    cause = _first_of(error)
    if isinstance(cause, ToolFailed):
        return cause
    if isinstance(cause, TimeoutError):
        return lost(server.place, talk.progress, "did not answer in time", "tool_timeout")
    if isinstance(cause, httpx2.TransportError):
        return lost(server.place, talk.progress, told(cause))
    if isinstance(cause, AnswerRefused | ValidationError):
        said = str(cause) if isinstance(cause, AnswerRefused) else "the answer is not what MCP allows"
        return UnusableAnswer(said, 200) if talk.progress.is_sent else ToolFailed(said)
    if isinstance(cause, MCPError):
        return _refusal(cause, server, talk)
    raise error


def _refusal(error: MCPError, server: RemoteServer, talk: Talk) -> ToolFailed:
    """Errors of the server, and those that the SDK makes of what it could not read."""
    if talk.status in (401, 403):
        return CallerRefused(f"{server.place} refused the caller ({talk.status})", talk.status)
    if talk.status in BUSY:
        return BusyService(f"{server.place} answered {talk.status}", talk.status, retry_after_s(talk.retry_after))
    if talk.status < 400 and (error.code in _NO_ANSWER or error.message.startswith("Unexpected content type")):
        return lost(server.place, talk.progress, "gave no answer that can be read")
    return ToolFailed(f"the server refused ({error.code}): {error.message}")


def _first_of(error: BaseException) -> BaseException:
    """The cause in the task groups' wrappings; our own before those that follow from it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first_of(one) for one in error.exceptions]
    return next((one for one in causes if isinstance(one, ToolFailed)), causes[0])
