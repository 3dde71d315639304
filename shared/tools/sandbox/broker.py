"""What a sandboxed tool may ask of the host: HTTP requests to the hosts that its catalogue entry names.

The tool never reaches the network and never sees a secret: the host makes the request and adds what authorises it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shared.tools.model import Invocation, Tool, ToolFailed, ToolUncertain
from shared.tools.sandbox.port import MB, HostCallRefused

MAX_CALLS: Final = 20
MAX_REQUEST_BYTES: Final = 256_000
MAX_ANSWER_BYTES: Final = MB
"""Of all answers of one run together."""

_SAFE_METHODS = ("GET", "HEAD")
_METHODS = (*_SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
_OURS = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "idempotency-key")
_MAX_HEADERS = 50
_URL = re.compile(r"https?://([a-zA-Z0-9.-]{1,253})(?::\d{1,5})?(?:[/?](?:(?!\\)[!-~])*)?")
"""Stricter than the standard, so that no two readers of the address can disagree about its host."""
_HEADER_NAME = re.compile(r"[a-zA-Z0-9-]{1,100}")
_HEADER_VALUE = re.compile(r"[\t -~]{0,4000}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokeredRequest:
    """A checked request. ``idempotency_key`` is the same in every attempt at the tool's execution, whatever the order
    in which its threads ask."""

    method: str
    url: str
    headers: dict[str, str]
    json: Any
    idempotency_key: str

    @property
    def is_safe(self) -> bool:
        """Whether it only reads."""
        return self.method in _SAFE_METHODS


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokeredAnswer:
    """What came back; ``body`` is JSON where the answer was, else text."""

    status: int
    headers: dict[str, str]
    body: Any


class Broker(Protocol):
    """Makes a request for a tool, with the tool's secrets. Raises ToolFailed, ToolUncertain, with nothing secret."""

    async def send(self, request: BrokeredRequest, tool: Tool, invocation: Invocation) -> BrokeredAnswer: ...


class HostCalls:
    """The host calls of one run, counted and bounded."""

    def __init__(self, broker: Broker, tool: Tool, invocation: Invocation) -> None:
        self.may_have_acted = False
        """Whether a request went out that may have changed something."""
        self.is_uncertain = False
        """Whether one of those ended without a whole answer."""
        self._broker = broker
        self._tool = tool
        self._invocation = invocation
        self._calls = 0
        self._asked: Counter[str] = Counter()
        self._room = MAX_ANSWER_BYTES

    async def __call__(self, name: str, asked: dict[str, Any]) -> Any:
        """Answer what the program asks for. Raises HostCallRefused."""
        if name != "http_request":
            raise HostCallRefused(f"the host has no call {name[:50]!r}")
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise HostCallRefused(f"a tool may make {MAX_CALLS} requests a run")
        request = self._checked(asked)
        return self._within_room(await self._send(request))

    async def _send(self, request: BrokeredRequest) -> dict[str, Any]:
        self.may_have_acted |= not request.is_safe
        try:
            answer = await self._broker.send(request, self._tool, self._invocation)
        except ToolUncertain as error:
            self.is_uncertain |= not request.is_safe
            raise HostCallRefused(error.message) from error
        except ToolFailed as error:
            raise HostCallRefused(error.message) from error
        return {"status": answer.status, "headers": answer.headers, "body": answer.body}

    def _checked(self, asked: dict[str, Any]) -> BrokeredRequest:
        method, url = asked.get("method"), asked.get("url")
        if not isinstance(method, str) or method.upper() not in _METHODS:
            raise HostCallRefused(f"the method must be one of {', '.join(_METHODS)}")
        check_host(url, self._tool.config.get("hosts") or ())
        body = asked.get("json")
        text = _text_of(body)
        if len(text.encode()) > MAX_REQUEST_BYTES:
            raise HostCallRefused(f"a request may have {MAX_REQUEST_BYTES:,} bytes")
        return BrokeredRequest(
            method=method.upper(),
            url=str(url),
            headers=_checked_headers(asked.get("headers") or {}),
            json=body,
            idempotency_key=self._key(f"{method.upper()} {url}\n{text}"),
        )

    def _key(self, request: str) -> str:
        """By what is asked, and how often it was: what a thread asks has another place among the others each time."""
        digest = hashlib.sha256(request.encode()).hexdigest()[:16]
        self._asked[digest] += 1
        return f"{self._invocation.execution_id}-{digest}-{self._asked[digest]}"

    def _within_room(self, answer: dict[str, Any]) -> dict[str, Any]:
        self._room -= len(json.dumps(answer))
        if self._room < 0:
            raise HostCallRefused(f"the answers to a tool may have {MAX_ANSWER_BYTES:,} bytes a run")
        return answer


def _text_of(body: Any) -> str:
    """The body as JSON, the same for equal ones. Raises HostCallRefused."""
    try:
        text = json.dumps(body, sort_keys=True, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError as error:  # no number, or half a character
        raise HostCallRefused(f"the request's json is none: {error}") from None
    return text


def check_host(url: object, hosts: Iterable[str]) -> None:
    """Raises HostCallRefused unless the address is plain and of one of ``hosts``: ``a.example``, ``*.a.example``."""
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise HostCallRefused("the url must be http or https with a plain host name and without a user")
    host = match[1].lower().rstrip(".")
    if not any(_fits(host, allowed.lower()) for allowed in hosts):
        raise HostCallRefused(f"this tool may not reach {host}; its config names the hosts that it may")


def _fits(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _checked_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, dict) or len(headers) > _MAX_HEADERS:
        raise HostCallRefused(f"headers must be an object of {_MAX_HEADERS} at most")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise HostCallRefused(f"the header {name[:50]!r} is not plain text")
        if name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise HostCallRefused(f"the header {name!r} is the host's to set")
    return headers
