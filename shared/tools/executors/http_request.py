"""From a tool's config and a call's arguments to the request. Pure functions.

An argument is data: it cannot change the host, add to the path, make headers or stand for a secret.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from shared.tools.executors.http_config import PATH_ARGUMENT, header_fault, method_of, place_of_argument, text_fault
from shared.tools.model import ToolFailed
from shared.tools.secrets.templates import render, secret_names

_BEARER = {"Authorization": "Bearer {{secret}}"}
_TEMPLATES = ("headers", "query", "body")


@dataclass(slots=True)
class HttpCall:
    """What to send. ``query`` are pairs in order, ``body`` is None where there is none."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    query: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | None = None

    @property
    def target(self) -> str:
        """The whole URL."""
        if not self.query:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(self.query)}"


def needed_secrets(config: Mapping[str, Any]) -> set[str]:
    """The names of the secrets that the config sends."""
    return secret_names(_templates(config), config.get("secret_ref"))


def build_call(config: Mapping[str, Any], args: Mapping[str, Any], secrets: Mapping[str, str]) -> HttpCall:
    """The request. Raises ToolFailed (``invalid_args``) for an argument that cannot stand where it has to."""
    fixed = render(_templates(config), secrets, config.get("secret_ref"))
    in_path = set(PATH_ARGUMENT.findall(urlsplit(config["url"]).path))
    call = HttpCall(method_of(config), _url(config, args))
    call.headers = {name: _header(name, value) for name, value in fixed["headers"].items()}
    call.query = [pair for name, value in fixed["query"].items() for pair in _pairs(name, value)]
    in_body: dict[str, Any] = {}
    for name, value in args.items():
        if name not in in_path:
            _place(call, in_body, fixed, place_of_argument(config, name, in_path), _wire_name(config, name), value)
    _set_body(call, config, {**fixed["body"], **in_body})
    return call


def _templates(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: dict(config.get(name, {})) for name in _TEMPLATES}
    if "secret_ref" in config and config["secret_ref"] not in secret_names(found, config["secret_ref"]):
        found["headers"] = {**_BEARER, **found["headers"]}
    return found


def _wire_name(config: Mapping[str, Any], name: str) -> str:
    return str(config.get("names", {}).get(name, name))


def _place(call: HttpCall, body: dict[str, Any], fixed: dict[str, Any], place: str, name: str, value: Any) -> None:
    if place == "header":
        if fault := header_fault(name) or (_has(call.headers, name) and "is set by the tool") or None:
            raise _bad(name, fault)
        if value is not None:
            call.headers[name] = _header(name, _scalar(name, value))
    elif place == "body":
        if name in fixed["body"]:
            raise _bad(name, "is set by the tool")
        body[name] = value
    else:
        if name in fixed["query"]:
            raise _bad(name, "is set by the tool")
        call.query += _pairs(name, value)


def _set_body(call: HttpCall, config: Mapping[str, Any], body: dict[str, Any]) -> None:
    if not body and call.method in ("GET", "HEAD", "DELETE"):
        return
    if config.get("body_format") == "form":
        call.body = urlencode([pair for name, value in body.items() for pair in _pairs(name, value)]).encode()
        kind = "application/x-www-form-urlencoded"
    else:
        call.body, kind = json.dumps(body, ensure_ascii=False).encode(), "application/json"
    if not _has(call.headers, "content-type"):
        call.headers["Content-Type"] = kind


def _url(config: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    parts = urlsplit(config["url"])

    def fill(name: str) -> str:
        if args.get(name) is None:
            raise _bad(name, "is needed for the tool's address")
        text = _scalar(name, args[name])
        pieces = text.split("/") if config.get("path_params", {}).get(name) == "segments" else [text]
        if any(not piece or {".", ".."} & set(piece.replace("\\", "/").split("/")) for piece in pieces):
            raise _bad(name, "must not be empty, . or .. in the tool's address")
        return "/".join(quote(piece, safe="") for piece in pieces)

    path = PATH_ARGUMENT.sub(lambda found: fill(found[1]), parts.path)
    return str(parts._replace(path=path).geturl())


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Null is left out, a list is repeated, an object is sent as JSON."""
    values = value if isinstance(value, list) else [value]
    yield from ((name, _text(one)) for one in values if one is not None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, dict | list):
        raise _bad(name, "must be text, a number or a boolean")
    return _text(value)


def _header(name: str, value: str) -> str:
    if fault := text_fault(value):
        raise _bad(name, fault)
    return value.strip()


def with_defaults(headers: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The headers and those of the defaults that are not among them, whatever their case."""
    return {**headers, **{name: value for name, value in defaults.items() if not _has(headers, name)}}


def _has(headers: Mapping[str, str], name: str) -> bool:
    return name.lower() in {one.lower() for one in headers}


def _bad(name: str, fault: str) -> ToolFailed:
    return ToolFailed(f"{name} {fault}", code="invalid_args")
