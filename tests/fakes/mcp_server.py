"""A real MCP server (the SDK's own) over HTTP on 127.0.0.1, with tools that behave, fail, hang, wait and page."""

import asyncio
import json
import socket
from typing import Any, Self

import uvicorn
from mcp import MCPError
from mcp.server import Server
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

ADD = Tool(
    name="add",
    description="Adds two numbers.",
    input_schema={"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
    output_schema={"type": "object", "properties": {"sum": {"type": "number"}}},
    annotations=ToolAnnotations(read_only_hint=True),
)


class McpServer:
    """An async context manager. ``calls`` are the arguments of each call, ``headers`` of each HTTP request.

    ``asked`` are the requests by their MCP method (``tools/call``), or else by that of HTTP (``DELETE``).
    """

    def __init__(
        self,
        *,
        token: str = "",
        tools: list[Tool] | None = None,
        page_size: int = 100,
        legacy: bool = False,
        port: int = 0,
    ) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.meta: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.status: int | None = None  # answer every request so
        self.negotiation_takes_s = 0.0
        self.go = asyncio.Event()  # lets the tool ``wait`` return
        self.port = port
        self._token = token
        self._tools = tools or [ADD]
        self._page_size = page_size
        self._legacy = legacy
        self._stack: list[Any] = []
        self._forgotten: set[str] = set()
        self._forgot = (404, b"")

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def sessions(self) -> set[str]:
        """The ids of all sessions that were used."""
        return {headers["mcp-session-id"] for headers in self.headers if "mcp-session-id" in headers}

    def forget(self, status: int = 404, body: bytes = b"") -> None:
        """Answer so to whatever comes in one of the sessions there are."""
        self._forgotten, self._forgot = self.sessions, (status, body)

    async def __aenter__(self) -> Self:
        server: Server[Any] = Server("fake", version="1", on_list_tools=self._list, on_call_tool=self._call)
        app = server.streamable_http_app(stateless_http=not self._legacy, json_response=not self._legacy)
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self._gate(app), log_config=None, timeout_graceful_shutdown=1, lifespan="off")
        running = uvicorn.Server(config)
        manager = server.session_manager.run()
        await manager.__aenter__()
        self._stack = [manager, running, asyncio.create_task(running._serve([listener]))]
        return self

    async def __aexit__(self, *_: object) -> None:
        manager, running, serving = self._stack
        running.should_exit = True
        await serving
        await manager.__aexit__(None, None, None)

    def _gate(self, app: Any) -> Any:
        """Before the SDK: remember the request, refuse strangers and 2026's messages to a server of the past."""

        async def gate(scope: Any, receive: Any, send: Any) -> None:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            body = await _whole(receive)
            self.headers.append(headers)
            self.asked.append(json.loads(body).get("method", "") if body else scope["method"])
            is_stranger = self._token and headers.get("authorization") != f"Bearer {self._token}"
            status, said = 401 if is_stranger else self.status, b""
            if status is None and headers.get("mcp-session-id") in self._forgotten:
                status, said = self._forgot
            if status is None and self._legacy and headers.get("mcp-method") == "server/discover":
                await asyncio.sleep(self.negotiation_takes_s)
                status = 404
            if status is None:
                await app(scope, _replayed(body, receive), send)
                return
            kind = [
                (b"retry-after", b"3"),
                (b"content-type", b"application/json" if said[:1] == b"{" else b"text/plain"),
            ]
            await send({"type": "http.response.start", "status": status, "headers": kind})
            await send({"type": "http.response.body", "body": said})

        return gate

    async def _list(self, context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        end = start + self._page_size
        return ListToolsResult(tools=self._tools[start:end], next_cursor=str(end) if end < len(self._tools) else None)

    async def _call(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        args = dict(params.arguments or {})
        self.calls.append((params.name, args))
        self.meta.append(dict(params.meta or {}) if isinstance(params.meta, dict) else params.meta or {})
        if params.name == "add":
            total = {"sum": args["a"] + args["b"]}
            return CallToolResult(content=[TextContent(type="text", text=str(total))], structured_content=total)
        if params.name == "say":
            return CallToolResult(content=[TextContent(type="text", text=args["text"])])
        if params.name == "fail":
            return CallToolResult(content=[TextContent(type="text", text=args["text"])], is_error=True)
        if params.name == "draw":
            return CallToolResult(content=[ImageContent(type="image", data="aGk=", mime_type="image/png")])
        if params.name == "deep":
            return CallToolResult(content=[], structured_content=_nested(100))
        if params.name == "huge":
            return CallToolResult(content=[TextContent(type="text", text="x" * (2 << 20))])
        if params.name == "wait":
            await self.go.wait()
            return CallToolResult(content=[TextContent(type="text", text="gone on")])
        if params.name == "hang":
            await asyncio.sleep(60)
        if params.name == "break":
            raise RuntimeError("a fault of the server")
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


async def _whole(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _replayed(body: bytes, receive: Any) -> Any:
    is_read = False

    async def again() -> Any:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
