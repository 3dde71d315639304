"""Talking to remote MCP servers (streamable HTTP, both protocol eras) by the same way out as any other request.

Imported when it is first used: the SDK takes half a second.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import httpx2
import orjson
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    HEADER_MISMATCH,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    InputRequiredResult,
    RequestParamsMeta,
    TextContent,
    TextResourceContents,
    Tool,
)
from pydantic import TypeAdapter, ValidationError

from shared.tools.model import ToolFailed
from shared.tools.web.answers import BUSY, retry_after_s
from shared.tools.web.client import Progress, WebClient, lost, told
from shared.tools.web.errors import BusyService, CallerRefused, UnusableAnswer
from shared.tools.web.redirects import parse_url, place_of
from shared.tools.web.transport import CONNECT_TIMEOUT_S, MAX_ANSWER_BYTES, AnswerRefused
from shared.wire.depth import MAX_DEPTH, is_deeper

MAX_TOOLS = 500
MAX_PAGES = 50
MAX_DEFINITION_BYTES = 65_536
_GOODBYE_S = 1.0
_KEY_IN_META = "daarion/idempotency-key"
_NO_ANSWER = (CONNECTION_CLOSED, REQUEST_TIMEOUT, PARSE_ERROR)


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """Where a server is, for which microDAO it is asked, and with which headers (secrets in their places)."""

    microdao_id: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class _Talk:
    """What went over the wire: how far the call came, and how the last message was answered."""

    idempotency_key: str = ""
    progress: Progress = field(default_factory=Progress)
    status: int = 200
    retry_after: str = ""


class _Watched(httpx2.AsyncBaseTransport):
    """Notes how a conversation goes, and names the call by its key."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, talk: _Talk) -> None:
        self._inner = inner
        self._talk = talk

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # the session's end: the result does not wait for it
            async with asyncio.timeout(_GOODBYE_S):
                return await self._inner.handle_async_request(request)
        if request.method == "POST" and orjson.loads(await request.aread()).get("method") == "tools/call":
            request.headers["idempotency-key"] = self._talk.idempotency_key
            request.extensions = {**request.extensions, "trace": self._talk.progress}
        response = await self._inner.handle_async_request(request)
        if request.method == "POST":
            self._talk.status = response.status_code
            self._talk.retry_after = response.headers.get("retry-after", "")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


async def call_remote_tool(
    client: WebClient,
    server: RemoteServer,
    tool: str,
    args: Mapping[str, Any],
    *,
    idempotency_key: str,
    deadline: float = math.inf,
) -> object:
    """The tool's structured result, or else its text.

    Raises ToolFailed (CallerRefused for 401 and 403), and ToolUncertain when the call went out and got no answer.
    """
    talk, results = _Talk(idempotency_key), list[object]()
    try:
        async with _connected(client, server, talk, MAX_ANSWER_BYTES, deadline) as session:
            results.append(_value_of(await _call(session, tool, args, idempotency_key)))
    except ToolFailed:
        raise
    except Exception as error:
        if not results:  # a result that is there stays, however the conversation ends
            raise _failure(error, server, talk) from None
    return results[0]


async def list_remote_tools(client: WebClient, server: RemoteServer, deadline: float = math.inf) -> list[Tool]:
    """Every tool of a server, at most MAX_TOOLS. Raises ToolFailed."""
    talk, found = _Talk(), list[Tool]()
    try:
        async with _connected(client, server, talk, 4 * MAX_ANSWER_BYTES, deadline) as session:
            found = await _list(session)
    except ToolFailed:
        raise
    except Exception as error:
        raise _failure(error, server, talk) from None
    return found


@asynccontextmanager
async def _connected(
    client: WebClient, server: RemoteServer, talk: _Talk, max_bytes: int, deadline: float
) -> AsyncIterator[Client]:
    place = place_of(parse_url(server.url))
    async with (
        asyncio.timeout_at(None if math.isinf(deadline) else deadline),
        client.transport(server.microdao_id, place, max_bytes=max_bytes) as transport,
        httpx2.AsyncClient(
            transport=_Watched(transport, talk),
            headers={**server.headers, "accept-encoding": "gzip", "user-agent": "daarion"},
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        ) as http,
        Client(streamable_http_client(server.url, http_client=http), cache=None) as session,
    ):
        yield session


async def _call(client: Client, tool: str, args: Mapping[str, Any], idempotency_key: str) -> Any:
    """Below the SDK's own ``call_tool``, which lists the server's tools after each call to check the result again."""
    meta = cast(RequestParamsMeta, {_KEY_IN_META: idempotency_key})
    params = CallToolRequestParams(name=tool, arguments=dict(args), _meta=meta)
    request = CallToolRequest(params=params)
    try:
        return await client.session.send_request(request, _results())
    except MCPError as error:
        if error.code != HEADER_MISMATCH:
            raise
    await _list(client)  # the server wants arguments in headers, which only its list tells; it has not run the tool
    return await client.session.send_request(request, _results())


async def _list(client: Client) -> list[Tool]:
    found, cursor = list[Tool](), None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if len(found) > MAX_TOOLS:
            break
        if cursor is None:
            _check_sizes(found)
            return found
    raise ToolFailed(f"the server lists more than {MAX_TOOLS} tools, or on more than {MAX_PAGES} pages")


def _check_sizes(tools: list[Tool]) -> None:
    for tool in tools:
        if len(tool.model_dump_json()) > MAX_DEFINITION_BYTES:
            raise ToolFailed(f"the definition of {tool.name[:100]!r} is larger than {MAX_DEFINITION_BYTES} bytes")
        if is_deeper([tool.input_schema, tool.output_schema]):
            raise ToolFailed(f"the schemas of {tool.name[:100]!r} are nested deeper than {MAX_DEPTH} levels")


def _value_of(result: CallToolResult | InputRequiredResult) -> object:
    if isinstance(result, InputRequiredResult):
        raise ToolFailed("the server's tool asks a person for input, which tools here cannot give")
    texts = [text for block in result.content if (text := _text_of(block)) is not None]
    if result.is_error:
        raise ToolFailed("\n".join(texts) or "the server's tool failed and did not say why")
    if result.structured_content is not None:
        if is_deeper(result.structured_content):
            raise UnusableAnswer(f"the server answered with JSON nested deeper than {MAX_DEPTH} levels", 200)
        return result.structured_content
    if result.content and not texts:
        raise UnusableAnswer(f"the server answered with {result.content[0].type}, not with JSON or text", 200)
    return "\n".join(texts)


def _text_of(block: object) -> str | None:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    return None


def _failure(error: Exception, server: RemoteServer, talk: _Talk) -> ToolFailed:
    cause = _first_of(error)
    place = place_of(parse_url(server.url))
    if isinstance(cause, ToolFailed):
        return cause
    if isinstance(cause, TimeoutError):
        return lost(place, talk.progress, "did not answer in time", "tool_timeout")
    if isinstance(cause, httpx2.TransportError):
        return lost(place, talk.progress, told(cause))
    if isinstance(cause, AnswerRefused | ValidationError):
        said = str(cause) if isinstance(cause, AnswerRefused) else "the answer is not what MCP allows"
        return UnusableAnswer(said, 200) if talk.progress.is_sent else ToolFailed(said)
    if isinstance(cause, MCPError):
        return _refusal(cause, server, talk)
    raise error


def _refusal(error: MCPError, server: RemoteServer, talk: _Talk) -> ToolFailed:
    """Errors of the server, and those that the SDK makes of what it could not read."""
    place = place_of(parse_url(server.url))
    if talk.status in (401, 403):
        return CallerRefused(f"{place} refused the caller ({talk.status})", talk.status)
    if talk.status in BUSY:
        return BusyService(f"{place} answered {talk.status}", talk.status, retry_after_s(talk.retry_after))
    if talk.status < 400 and (error.code in _NO_ANSWER or error.message.startswith("Unexpected content type")):
        return lost(place, talk.progress, "gave no answer that can be read")
    return ToolFailed(f"the server refused ({error.code}): {error.message}")


def _first_of(error: BaseException) -> BaseException:
    """The cause in the task groups' wrappings; our own before those that follow from it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_first_of(one) for one in error.exceptions]
    return next((one for one in causes if isinstance(one, ToolFailed)), causes[0])


@cache
def _results() -> TypeAdapter[CallToolResult | InputRequiredResult]:
    return TypeAdapter(CallToolResult | InputRequiredResult)
