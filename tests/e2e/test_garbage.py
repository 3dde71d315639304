"""Garbage at every endpoint: a clear 4xx in the API's own shape, never a 500 and never a traceback."""

from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ADMIN_KEY, Stack

BODIES: list[tuple[str, bytes, str]] = [
    ("not json", b"{", "application/json"),
    ("wrong encoding", b'{"a": "\xff\xfe"}', "application/json"),
    ("nul", b'{"model": "sofia", "messages": [{"role": "user", "content": "a\\u0000b"}]}', "application/json"),
    ("lone surrogate", b'{"model": "\\ud800"}', "application/json"),
    ("array", b"[]", "application/json"),
    ("null", b"null", "application/json"),
    ("nan", b'{"temperature": NaN}', "application/json"),
    ("deep", b"[" * 5000 + b"]" * 5000, "application/json"),
    ("form", b"a=b", "application/x-www-form-urlencoded"),
    ("empty", b"", "application/json"),
    ("wrong types", b'{"model": 7, "messages": "hi", "steps": 5, "agent_id": [], "query": {}}', "application/json"),
]


def operations(stack: Stack) -> list[tuple[str, str]]:
    paths = httpx.get(f"{stack.url}/openapi.json", timeout=60).json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def check_refusal(response: httpx.Response, path: str) -> None:
    assert 400 <= response.status_code < 500, (
        f"{response.request.method} {path}: {response.status_code} {response.text}"
    )
    body: dict[str, Any] = response.json()
    assert set(body["error"]) == {"message", "type", "param", "code"}, path
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert ("request_id" in body) != path.startswith("/v1/")


@pytest.mark.parametrize(("kind", "body", "content_type"), BODIES, ids=[kind for kind, _, _ in BODIES])
def test_bad_bodies(stack: Stack, kind: str, body: bytes, content_type: str) -> None:
    with stack.client(ADMIN_KEY) as client:
        for method, path in operations(stack):
            if method in ("POST", "PUT", "PATCH"):
                address = path.replace("{", "").replace("}", "")
                response = client.request(method, address, content=body, headers={"content-type": content_type})
                check_refusal(response, path)


def test_bad_ids_and_queries(stack: Stack) -> None:
    with stack.client(ADMIN_KEY) as client:
        for bad in ("none", "%00", "%ff", "a" * 5000, "'; DROP TABLE flow; --", "..%2f..%2fetc"):
            for method, path in operations(stack):
                if method == "GET" and "{" in path:
                    head, _, rest = path.partition("{")
                    response = client.get(head + bad + rest.partition("}")[2])
                    check_refusal(response, path)
        for query in (
            "limit=0",
            "limit=x",
            "limit=99999999999999999999",
            "before=%00",
            "after=%00",
            "period=soon",
            "wait=-1",
        ):
            for path in ("/agents", "/internal/tools", "/internal/router/flows", "/internal/llm/usage"):
                response = client.get(f"{path}?{query}")
                assert response.status_code < 500, f"{path}?{query}"


def test_wrong_methods_and_paths(stack: Stack) -> None:
    with stack.client(ADMIN_KEY) as client:
        for path in {path for _, path in operations(stack)}:
            response = client.request("PROPFIND", path.replace("{", "").replace("}", ""))
            assert response.status_code == 405, path
            check_refusal(response, path)
        response = client.get("/nowhere")
        assert response.status_code == 404
        check_refusal(response, "/nowhere")


def test_without_a_key_nothing_is_said(stack: Stack) -> None:
    for method, path in operations(stack):
        if path not in ("/healthz", "/readyz"):
            response = httpx.request(method, f"{stack.url}{path.replace('{', '').replace('}', '')}")
            assert response.status_code == 401, path
            check_refusal(response, path)


def test_a_huge_body_is_refused(stack: Stack) -> None:
    with stack.client() as client:
        content = b'{"model": "sofia", "messages": [{"role": "user", "content": "' + b"a" * 12_000_000 + b'"}]}'
        response = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
        assert response.status_code == 413
        chunked = client.post(
            "/v1/chat/completions",
            content=(b"x" * 1_000_000 for _ in range(12)),
            headers={"content-type": "application/json"},
        )
        assert chunked.status_code == 413
