"""Every error we report, as openai-python sees it: the right exception, with code, type, param and request id."""

import inspect

import httpx2
import openai
import pytest

from functions.chat.error_responses import error_response
from shared import errors
from shared.errors import ApiError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ApiError) and kind is not ApiError
]
EXCEPTIONS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}


def client_of(error: ApiError, seen: list[httpx2.Request], *, retries: int = 0) -> openai.OpenAI:
    """A client whose server always answers with this error."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        made = error_response(error, request.url.path, "req_1")
        headers = {**dict(made.headers), "x-request-id": "req_1"}
        return httpx2.Response(made.status_code, headers=headers, content=bytes(made.body))

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(base_url="http://test/v1", api_key="k", max_retries=retries, http_client=transport)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_code_has_its_exception(kind: type[ApiError]) -> None:
    with (
        client_of(kind("what went wrong", param="messages"), []) as client,
        pytest.raises(EXCEPTIONS.get(kind.status, openai.APIStatusError)) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    seen = caught.value
    assert (seen.status_code, seen.code, seen.type, seen.param) == (kind.status, kind.code, kind.type, "messages")
    assert seen.request_id == "req_1"
    assert "what went wrong" in seen.message


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (errors.InsufficientQuota("spent", headers={"x-should-retry": "false"}), 1),
        (errors.UnsupportedParameter("no"), 1),
        (errors.RateLimitExceeded("wait", headers={"retry-after-ms": "1"}), 3),
        (errors.Unavailable("down", headers={"x-should-retry": "false"}), 1),
    ],
)
def test_clients_retry_only_what_waiting_mends(error: ApiError, requests: int) -> None:
    seen: list[httpx2.Request] = []
    with client_of(error, seen, retries=2) as client, pytest.raises(openai.APIStatusError):
        client.models.list()
    assert len(seen) == requests
