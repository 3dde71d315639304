"""Lambda's Invoke API in front of the local engine: the payload goes to the function's ``/events``, as on Lambda.

Everything else goes to the engine. Source: docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

import http.client
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import orjson

from shared.observability import Log

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

READY_PATH = "/_localstack/health"  # LocalStack's own, so that one check serves both engines
IDENTITY_HEADER = "x-daarion-engine"

_INVOKE_PREFIX = "/2015-03-31/functions/"
_INVOKE_SUFFIX = "/invocations"
_log = Log("gateway")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a function listens, and how long it may take."""

    url: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Gateway:
    """The WSGI app. ``ready`` turns true when queues and state machines exist."""

    def __init__(self, engine: WsgiApp, targets: Mapping[str, Target]) -> None:
        self._engine = engine
        self._targets = targets
        self._identity = secrets.token_hex(8)
        self.ready = False

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI entry point."""
        path: str = environ["PATH_INFO"]
        if path == READY_PATH:
            return _respond(start_response, self._health())
        if path.startswith(_INVOKE_PREFIX) and path.endswith(_INVOKE_SUFFIX):
            function = path.removeprefix(_INVOKE_PREFIX).removesuffix(_INVOKE_SUFFIX).rsplit(":", 1)[-1]
            payload = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _respond(start_response, self._invoke(function, payload))
        return self._engine(environ, start_response)

    def _health(self) -> _Answer:
        """Each engine has its own identity: a new one has forgotten every message."""
        status = "200 OK" if self.ready else "503 Service Unavailable"
        return _Answer(status, b"{}", ((IDENTITY_HEADER, self._identity),))

    def _invoke(self, function: str, payload: bytes) -> _Answer:
        target = self._targets.get(function)
        if target is None:
            return _service_error("404 Not Found", "ResourceNotFoundException", f"no function {function!r}")
        try:
            status, body = _post(target, payload or b"{}")
        except TimeoutError:
            return _function_error(
                orjson.dumps({"errorType": "Sandbox.Timedout", "errorMessage": "the function timed out"})
            )
        except OSError as error:
            _log.warning("function cannot be reached", function=function, error=type(error).__name__)
            return _service_error("500 Internal Server Error", "ServiceException", f"{function} cannot be reached")
        return _Answer("200 OK", body) if 200 <= status < 300 else _function_error(body)


def _post(target: Target, payload: bytes) -> tuple[int, bytes]:
    address = urlsplit(target.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=target.timeout_s)
    try:
        connection.request("POST", f"{address.path}/events", payload, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _function_error(body: bytes) -> _Answer:
    """The call to the service worked, the function did not."""
    return _Answer("200 OK", body, (("X-Amz-Function-Error", "Unhandled"),))


def _service_error(status: str, code: str, message: str) -> _Answer:
    """The service itself failed. Without a request id the engine's interpreter could not report it to a Retry."""
    body = orjson.dumps({"Type": "Service", "Message": message})
    return _Answer(status, body, (("x-amzn-ErrorType", code), ("x-amzn-RequestId", str(uuid4()))))


def _respond(start_response: StartResponse, answer: _Answer) -> Iterable[bytes]:
    headers = [("content-type", "application/json"), ("content-length", str(len(answer.body))), *answer.headers]
    start_response(answer.status, headers)
    return [answer.body]
