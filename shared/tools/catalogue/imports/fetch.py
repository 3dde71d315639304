"""Getting an OpenAPI document from the outside, within the limits of all tools."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson
import yaml

from shared.errors import InvalidRequest
from shared.tools.executors.outside import Outside
from shared.wire.depth import MAX_DEPTH

if TYPE_CHECKING:
    from shared.tools.web.answers import Answer

TIMEOUT_S: Final = 20.0
MAX_YAML_NODES: Final = 200_000
"""Counted with its aliases written out: a few lines of them can stand for millions."""
_REDIRECTS: Final = 3
_ACCEPTED: Final = "application/json, application/yaml, text/yaml"


class DocumentFetcher:
    """Fetches with the tools' own way out; a secret is sent as a bearer token to the hosts it is bound to."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def __call__(self, microdao_id: str, url: str, secret_ref: str | None) -> Any:
        """The document, parsed. Raises ToolFailed, InvalidRequest (it is neither JSON nor YAML)."""
        from shared.tools.web.answers import check_status
        from shared.tools.web.client import WebRequest

        names = [secret_ref] if secret_ref else []
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        async with self._outside.opened(microdao_id, names, url) as secrets:
            bearer = {"authorization": f"Bearer {secrets.values[secret_ref]}"} if secret_ref else {}
            headers = {"accept": _ACCEPTED, **bearer}
            request = WebRequest(
                microdao_id=microdao_id, method="GET", url=url, headers=headers, max_redirects=_REDIRECTS
            )
            answer = await self._outside.client.send(request, deadline)
            check_status(answer, "the document's server", secrets.redactor.text)
            # A server may quote what it was sent, and what a document says is kept and shown.
            return secrets.redactor.value(await asyncio.to_thread(_parsed, answer))


def parse_document(text: str) -> Any:
    """JSON or YAML. Raises InvalidRequest."""
    try:
        return _checked(orjson.loads(text))
    except orjson.JSONDecodeError:
        pass
    try:
        return _checked(yaml.load(text, Loader=_Loader))  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InvalidRequest("the document is neither JSON nor YAML", param="document") from None


def _parsed(answer: "Answer") -> Any:
    return parse_document(answer.text)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _checked(document: Any) -> Any:
    """The document with aliases written out, if it is not too large then. Dates become text again."""
    left = MAX_YAML_NODES

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            what = f"{MAX_YAML_NODES:,} values" if left < 0 else f"{MAX_DEPTH} levels"
            raise InvalidRequest(f"the document holds more than {what}", param="document")
        if isinstance(value, dict):
            return {str(name): copied(one, depth + 1) for name, one in value.items()}
        if isinstance(value, list):
            return [copied(one, depth + 1) for one in value]
        return value if isinstance(value, str | int | float | None) else str(value)

    return copied(document, 0)
