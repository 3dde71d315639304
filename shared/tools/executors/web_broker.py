"""Makes the requests that sandboxed tools ask for, with the web client's limits and the tool's secrets."""

import json
from typing import Any

from shared.tools.executors.http_request import build_call, needed_secrets, with_defaults
from shared.tools.executors.outside import Outside, deadline_of, told_honestly
from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.sandbox.broker import BrokeredAnswer, BrokeredRequest
from shared.tools.web.answers import value_of

_NO_URL = "https://host.invalid/"
"""Only the headers of a config are used; its program names the URL."""
_SHOWN_HEADERS = ("content-type", "date", "etag", "last-modified", "link", "location", "retry-after")


class WebBroker:
    """A ``Broker``. The tool's config says as an http tool's which secrets go along: ``secret_ref``, ``headers``."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def send(self, request: BrokeredRequest, tool: Tool, invocation: Invocation) -> BrokeredAnswer:
        """The answer without secrets, whatever its status. Raises ToolFailed, ToolUncertain."""
        from shared.tools.web.client import WebRequest

        wanted: dict[str, Any] = {name: tool.config[name] for name in ("headers", "secret_ref") if name in tool.config}
        async with self._outside.opened(invocation.microdao_id, needed_secrets(wanted), request.url) as secrets:
            fixed = build_call({**wanted, "url": _NO_URL}, {}, secrets.values).headers
            web_request = WebRequest(
                microdao_id=invocation.microdao_id,
                method=request.method,
                url=request.url,
                headers=_headers(request, fixed),
                body=_body(request),
            )
            try:
                answer = await self._outside.client.send(web_request, deadline_of(tool, invocation))
                shown = {name: value for name, value in answer.headers.items() if name in _SHOWN_HEADERS}
                return BrokeredAnswer(
                    status=answer.status,
                    headers={name: secrets.redactor.text(value) for name, value in shown.items()},
                    body=secrets.redactor.value(value_of(answer)),
                )
            except ToolFailed as failure:
                raise told_honestly(failure, may_repeat=request.is_safe) from None


def _headers(request: BrokeredRequest, fixed: dict[str, str]) -> dict[str, str]:
    """The tool's config goes before what its code asks for."""
    asked = with_defaults(fixed, {"Idempotency-Key": request.idempotency_key, **request.headers})
    kind = {} if request.json is None else {"Content-Type": "application/json"}
    return with_defaults(asked, kind)


def _body(request: BrokeredRequest) -> bytes:
    return b"" if request.json is None else json.dumps(request.json, ensure_ascii=False).encode()
