"""How a session begins and ends."""

import asyncio
import re
from contextlib import suppress

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import DiscoverResult, Implementation, InitializeResult, ServerCapabilities

from shared.tools.model import ToolFailed
from shared.tools.web.client import WebClient, WebRequest
from shared.tools.web.mcp.failures import failure
from shared.tools.web.mcp.session import RemoteServer, Session
from shared.tools.web.mcp.talk import SESSION_HEADER, Talk, talking
from shared.tools.web.transport import MAX_ANSWER_BYTES

NEGOTIATION_TIMEOUT_S = 20.0
_GOODBYE_S = 1.0
_SESSION_ID = re.compile(r"[\x21-\x7e]{0,4096}")


async def negotiate(client: WebClient, server: RemoteServer) -> Session:
    """Agree on a protocol with a server, for who holds a slot. Raises ToolFailed; nothing was called then."""
    talk, agreed = Talk(), list[DiscoverResult | InitializeResult]()
    deadline = asyncio.get_running_loop().time() + NEGOTIATION_TIMEOUT_S
    try:
        async with (
            talking(client, server, talk, max_bytes=MAX_ANSWER_BYTES, deadline=deadline) as http,
            Client(streamable_http_client(server.url, http_client=http, terminate_on_close=False), cache=None) as known,
        ):
            if known.session.initialize_result is not None:
                await talk.greeting.delivered()  # leaving before would cut it off
            agreed.append(_essence(known))
    except ToolFailed:
        raise
    except Exception as error:
        if not agreed:
            raise failure(error, server, talk) from None
    if not _SESSION_ID.fullmatch(talk.new_session_id):
        raise ToolFailed("the server gave its session an id that is too long or holds forbidden characters")
    return Session(server, _version(agreed[0]), agreed[0], talk.new_session_id)


async def end(client: WebClient, session: Session) -> None:
    """Tell the server that a session is over. It need not listen."""
    server = session.server
    names = {SESSION_HEADER: session.id, "mcp-protocol-version": session.version, "user-agent": "daarion"}
    request = WebRequest(
        microdao_id=server.microdao_id, method="DELETE", url=server.url, headers={**server.headers, **names}
    )
    with suppress(ToolFailed):
        await client.send(request, asyncio.get_running_loop().time() + _GOODBYE_S)


def _essence(known: Client) -> DiscoverResult | InitializeResult:
    """What messages depend on. Of what a server says about itself, which may be long, nothing is kept."""
    if known.session.initialize_result is not None:
        return InitializeResult(
            protocol_version=known.protocol_version,
            capabilities=ServerCapabilities(),
            server_info=Implementation(name="", version=""),
        )
    return DiscoverResult(
        supported_versions=[known.protocol_version],
        capabilities=ServerCapabilities(),
        result_type="complete",
        ttl_ms=0,
        cache_scope="private",
    )


def _version(agreed: DiscoverResult | InitializeResult) -> str:
    return agreed.protocol_version if isinstance(agreed, InitializeResult) else agreed.supported_versions[0]
