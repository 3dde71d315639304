"""Calling and listing the tools of servers, in sessions that are kept."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, TypeVar, cast

from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import CallOptions
from mcp.shared.inbound import x_mcp_header_map
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp.types import (
    HEADER_MISMATCH,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    PaginatedRequestParams,
    RequestId,
    RequestParamsMeta,
    Tool,
)
from pydantic import TypeAdapter

from shared.tools.model import ToolFailed, ToolUncertain
from shared.tools.web.client import WebClient
from shared.tools.web.mcp.failures import failure
from shared.tools.web.mcp.kept import Bounds, Held, KeptSessions
from shared.tools.web.mcp.negotiation import end, negotiate
from shared.tools.web.mcp.refusals import speaks_of_session
from shared.tools.web.mcp.results import check_sizes, value_of
from shared.tools.web.mcp.session import RemoteServer, Session
from shared.tools.web.mcp.talk import Talk, talking
from shared.tools.web.transport import MAX_ANSWER_BYTES

MAX_TOOLS = 500
MAX_PAGES = 50
_KEY_IN_META = "daarion/idempotency-key"

T = TypeVar("T")
_Result = CallToolResult | InputRequiredResult
_Ask = Callable[[ClientSession, Session], Awaitable[T]]


class McpClient:
    """Speaks with servers by ``client``'s way out. Conversations in one session do not wait for each other."""

    def __init__(self, client: WebClient, bounds: Bounds | None = None) -> None:
        self._client = client
        self._sessions = KeptSessions(partial(negotiate, client), partial(end, client), bounds)

    async def call_tool(
        self,
        server: RemoteServer,
        tool: str,
        args: Mapping[str, Any],
        *,
        idempotency_key: str,
        deadline: float,
    ) -> object:
        """The tool's structured result, or else its text, by ``deadline`` (of the loop's clock).

        Raises ToolFailed (CallerRefused for 401 and 403), and ToolUncertain when the call went out and got no answer.
        """
        meta = cast(RequestParamsMeta, {_KEY_IN_META: idempotency_key})
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(args), _meta=meta))
        ask = partial(_call, request)
        return value_of(await self._ask(server, ask, MAX_ANSWER_BYTES, deadline, idempotency_key))

    async def list_tools(self, server: RemoteServer, deadline: float) -> list[Tool]:
        """Every tool of a server, at most MAX_TOOLS. Raises ToolFailed."""
        tools = await self._ask(server, _list, 4 * MAX_ANSWER_BYTES, deadline)
        check_sizes(tools)
        return tools

    async def close(self) -> None:
        """End all sessions."""
        await self._sessions.close()

    async def _ask(self, server: RemoteServer, ask: _Ask[T], max_bytes: int, deadline: float, key: str = "") -> T:
        """Ask in the kept session, and once more in another if the server says that this one is over: then it has not
        done what it was asked. A session that was negotiated just now is not worth another try.
        """
        # The slot comes first, or a session could end while a call that has it waits. A negotiation needs none of its
        # own: it goes on only while somebody waits for it, in a slot.
        async with self._client.slot(server.microdao_id, server.place, deadline):
            for is_last in (False, True):
                async with self._sessions.held(server, deadline) as held:
                    talk = Talk(held.session, key)
                    try:
                        return await self._converse(held, talk, ask, max_bytes, deadline)
                    except ToolUncertain:
                        raise
                    except ToolFailed as failed:
                        if talk.is_refused or speaks_of_session(failed.message):
                            self._sessions.drop(held.session, is_over=talk.is_session_over)
                        if is_last or held.is_new or not talk.is_session_over:
                            raise
        raise AssertionError("the last try returns or raises")

    async def _converse(self, held: Held, talk: Talk, ask: _Ask[T], max_bytes: int, deadline: float) -> T:
        session, answers = held.session, list[T]()
        url = session.server.url
        try:
            async with (
                talking(self._client, session.server, talk, max_bytes=max_bytes, deadline=deadline) as http,
                streamable_http_client(url, http_client=http, terminate_on_close=False) as (read, write),
                ClientSession(dispatcher=_Numbered(read, write, session.request_ids)) as known,
            ):
                known.adopt(session.agreed)
                answers.append(await ask(known, session))
        except ToolFailed:
            raise
        except Exception as error:
            if not answers:  # an answer that is there stays, however the conversation ends
                raise failure(error, session.server, talk) from None
        return answers[0]


class _Numbered(JSONRPCDispatcher[TransportContext]):
    """Takes the ids of its requests from those of the session, where the SDK's own begins at 1."""

    def __init__(self, read: Any, write: Any, request_ids: Iterator[int]) -> None:
        super().__init__(read, write)
        self._request_ids = request_ids

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: RequestId | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises MCPError."""
        numbered: CallOptions = {**(opts or {}), "request_id": next(self._request_ids)}
        return await super().send_raw_request(method, params, numbered, _related_request_id=_related_request_id)


async def _call(request: CallToolRequest, known: ClientSession, session: Session) -> _Result:
    """Below the SDK's own ``call_tool``, which lists the server's tools after each call to check the result again."""
    try:
        return await known.send_request(request, _results())
    except MCPError as error:
        if error.code != HEADER_MISMATCH:
            raise
    # The server wants arguments in headers, which only its list tells; it has not run the tool.
    name = request.params.name
    session.header_maps.pop(name, None)
    for tool in await _list(known, session):
        if tool.name == name:
            session.header_maps[name] = x_mcp_header_map(tool.input_schema)
    return await known.send_request(request, _results())


async def _list(known: ClientSession, session: Session) -> list[Tool]:
    found, cursor = list[Tool](), None
    for _ in range(MAX_PAGES):
        page = await known.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found += page.tools
        cursor = page.next_cursor
        if len(found) > MAX_TOOLS:
            break
        if cursor is None:
            return found
    raise ToolFailed(f"the server lists more than {MAX_TOOLS} tools, or on more than {MAX_PAGES} pages")


@cache
def _results() -> TypeAdapter[_Result]:
    return TypeAdapter(CallToolResult | InputRequiredResult)
