"""What servers say when they do not know a session, and what only looks like it."""

import pytest

from shared.tools.web.mcp.refusals import refuses_session
from shared.tools.web.mcp.session import RemoteServer

CALL = 7


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b'{"jsonrpc": "2.0", "error": {"code": -32001, "message": "Session not found"}, "id": null}'),
        (404, b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "Method not found"}}'),
        (400, b"Bad Request: No valid session ID provided"),
        (400, b'{"error": {"code": -32000, "message": "Bad Request: No valid session ID provided"}, "id": null}'),
        (400, b'{"id": "server-error", "error": {"code": -32600, "message": "Bad Request: Missing session ID"}}'),
        (400, b'{"error": {"code": -32000, "message": "Bad Request: Server not initialized"}, "id": null}'),
        (400, b'{"error": {"code": -32000, "message": "Unsupported protocol version: 2026-07-28"}, "id": null}'),
        (400, b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32022, "message": "Unsupported"}}'),
    ],
)
def test_the_session_is_over(status, body):
    assert refuses_session(status, body, CALL)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32001, "message": "Session not found"}}'),
        (400, b""),
        (400, b"your booking is not valid"),
        (400, b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "the session of the user ended"}}'),
        (400, b'["a list"]'),
        (401, b"no session"),
        (500, b"Session not found"),
        (502, b"session"),
    ],
)
def test_the_call_itself_is_refused_or_may_have_been_done(status, body):
    assert not refuses_session(status, body, CALL)


def test_fingerprints_tell_tenants_servers_and_credentials_apart_and_nothing_else():
    same = RemoteServer("m:1", "https://mcp.test/a", {"Authorization": "Bearer one", "X-Team": "a"}).fingerprint()
    assert (
        RemoteServer("m:1", "https://mcp.test/a", {"x-team": "a", "authorization": "Bearer one"}).fingerprint() == same
    )
    others = [
        RemoteServer("m:2", "https://mcp.test/a", {"Authorization": "Bearer one", "X-Team": "a"}),
        RemoteServer("m:1", "https://mcp.test/b", {"Authorization": "Bearer one", "X-Team": "a"}),
        RemoteServer("m:1", "https://mcp.test/a", {"Authorization": "Bearer two", "X-Team": "a"}),
        RemoteServer("m:1", "https://mcp.test/a", {"Authorization": "Bearer one"}),
        RemoteServer("m:1", "https://mcp.test/a"),
    ]
    assert len({same, *(other.fingerprint() for other in others)}) == 6
    assert "Bearer" not in repr(others)
