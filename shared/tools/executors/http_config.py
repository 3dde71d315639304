"""What the config of an ``http`` tool may say, checked when it is written. Pure functions.

url           https://api.example.com/orders/{order_id}: the path may hold arguments
method        GET (the default), HEAD, POST, PUT, PATCH, DELETE
headers, query, body   what is sent with every call; strings may hold {{secret}} and {{secrets.name}}
body_format   json (the default) or form
in            where arguments go: {"name": "path|query|header|body"}; by default a path's own to the path, all others
              to the query of GET, HEAD and DELETE and to the body of the rest
names         what arguments are called in the request, where that differs: {"trace": "X-Trace-Id"}
path_params   {"file": "segments"}: this argument may hold slashes
secret_ref    the secret behind {{secret}}; named without a place for it, it is sent as a bearer token
result_path   which part of a JSON answer is the result: data.items.0
max_redirects 0 (the default) to 3
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from shared.errors import InvalidRequest
from shared.tools.secrets.templates import NAME_PATTERN, template_fault
from shared.tools.web.addresses import host_fault

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
IN_QUERY = ("GET", "HEAD", "DELETE")
PLACES = ("path", "query", "header", "body")
BODY_FORMATS = ("json", "form")
PATH_ARGUMENT = re.compile(r"\{([^{}/]+)\}")
MOST_REDIRECTS = 3
_FIELDS = frozenset(
    {"url", "method", "headers", "query", "body", "body_format", "in", "names", "path_params", "secret_ref"}
    | {"result_path", "max_redirects"}
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OWN_HEADERS = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|accept-encoding"
    r"|idempotency-key|proxy-.*|x-daarion-.*",
    re.IGNORECASE,
)
_MAX_URL = 2000


def check_http_config(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raises InvalidRequest whose ``param`` is the path of the field at fault (``config.headers.Host``)."""
    for field, fault in _faults(config, set(parameters.get("properties", {}))):
        raise InvalidRequest(f"{field}: {fault}", param=field)


def url_fault(url: object) -> str | None:
    """Why a tool's URL is none; None if it is one. Arguments stand in its path only, and secrets nowhere."""
    if not isinstance(url, str) or not 0 < len(url) <= _MAX_URL or not url.isprintable() or " " in url:
        return f"must be a URL of at most {_MAX_URL} characters"
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return "must begin with https:// or http:// and name a host"
    if "@" in parts.netloc:
        return "must not hold a user name or password; use a secret"
    if parts.fragment or "#" in url:
        return "must not have a fragment"
    if any(brace in parts.netloc + parts.query for brace in "{}"):
        return "may hold arguments in its path only; those of the query are sent by themselves"
    return _path_fault(parts.path) or _ascii_host_fault(parts.hostname)


def header_fault(name: str) -> str | None:
    """Why a tool may not send this header; None if it may."""
    if not _HEADER_NAME.fullmatch(name):
        return "is not the name of a header"
    return "is a header that the platform sets itself" if _OWN_HEADERS.fullmatch(name) else None


def place_of_argument(config: Mapping[str, Any], name: str, in_path: set[str]) -> str:
    """Where an argument goes: path, query, header or body."""
    if name in in_path:
        return "path"
    by_method = "query" if method_of(config) in IN_QUERY else "body"
    return str(config.get("in", {}).get(name, by_method))


def method_of(config: Mapping[str, Any]) -> str:
    """The method."""
    return str(config.get("method", "GET"))


def _faults(config: Mapping[str, Any], properties: set[str]) -> Iterator[tuple[str, str]]:
    """Each field that is wrong with what is wrong about it, in order; what follows relies on what came before."""
    yield from ((f"config.{name}", "is not a field of an http tool") for name in sorted(set(config) - _FIELDS))
    if fault := url_fault(config.get("url")):
        yield "config.url", fault
    yield from _plain_faults(config)
    yield from _map_faults(config)
    yield from _template_faults(config)
    yield from _argument_faults(config, properties)


def _plain_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if config.get("method", "GET") not in METHODS:
        yield "config.method", f"must be one of {', '.join(METHODS)}"
    if config.get("body_format", "json") not in BODY_FORMATS:
        yield "config.body_format", f"must be one of {', '.join(BODY_FORMATS)}"
    redirects = config.get("max_redirects", 0)
    if type(redirects) is not int or not 0 <= redirects <= MOST_REDIRECTS:
        yield "config.max_redirects", f"must be a number from 0 to {MOST_REDIRECTS}"
    path = config.get("result_path", "result")
    if not isinstance(path, str) or not path or not all(path.split(".")):
        yield "config.result_path", "must be names with dots between them"
    secret = config.get("secret_ref", "name")
    if not isinstance(secret, str) or not re.fullmatch(NAME_PATTERN, secret):
        yield "config.secret_ref", "must be the name of a secret"


def _map_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("headers", "query", "body", "in", "names", "path_params"):
        if not isinstance(config.get(field, {}), dict):
            yield f"config.{field}", "must be an object"
    for field in ("headers", "names", "path_params", "in"):
        yield from (
            (f"config.{field}.{name}", "must be text")
            for name, value in config.get(field, {}).items()
            if not isinstance(value, str)
        )
    for name, value in config.get("headers", {}).items():
        if fault := header_fault(name) or text_fault(value):
            yield f"config.headers.{name}", fault
    for name, value in config.get("query", {}).items():
        if not isinstance(value, str | int | float | bool):
            yield f"config.query.{name}", "must be text, a number or a boolean"
    if config.get("body") and method_of(config) in ("GET", "HEAD"):
        yield "config.body", "cannot be sent by GET and HEAD"


def _template_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("headers", "query", "body"):
        for name, value in config.get(field, {}).items():
            if fault := template_fault(value, config.get("secret_ref")):
                yield f"config.{field}.{name}", fault


def _argument_faults(config: Mapping[str, Any], properties: set[str]) -> Iterator[tuple[str, str]]:
    in_path = set(PATH_ARGUMENT.findall(urlsplit(config["url"]).path))
    yield from (("config.url", f"{{{name}}} is not a parameter") for name in sorted(in_path - properties))
    for field in ("in", "names", "path_params"):
        for name in sorted(set(config.get(field, {})) - properties):
            yield f"config.{field}.{name}", "is not a parameter"
    for name, kind in config.get("path_params", {}).items():
        if kind not in ("segment", "segments") or name not in in_path:
            yield f"config.path_params.{name}", "must be segment or segments, of a parameter in the path"
    for name, place in config.get("in", {}).items():
        if place not in PLACES or (place == "path") != (name in in_path):
            yield f"config.in.{name}", f"must be one of {', '.join(PLACES)}; path for what stands in the URL, else not"
        if place == "body" and method_of(config) in ("GET", "HEAD"):
            yield f"config.in.{name}", "cannot go into the body of GET and HEAD"
    yield from _clashes(config, properties - in_path)


def _clashes(config: Mapping[str, Any], properties: set[str]) -> Iterator[tuple[str, str]]:
    """Arguments may not take the place of what the config sends, nor of one another."""
    taken = {("header", name.lower()) for name in config.get("headers", {})}
    taken |= {("query", name) for name in config.get("query", {})} | {("body", name) for name in config.get("body", {})}
    for name in sorted(properties):
        place = place_of_argument(config, name, set())
        wire = config.get("names", {}).get(name, name)
        if place == "header" and (fault := header_fault(wire)):
            yield f"config.in.{name}", f"{wire} {fault}"
        key = (place, wire.lower() if place == "header" else wire)
        if key in taken:
            yield f"config.names.{name}" if name != wire else f"config.in.{name}", f"{wire} is in the {place} already"
        taken.add(key)


def text_fault(value: str) -> str | None:
    """Why a header cannot hold this; None if it can."""
    return None if value.isascii() and (value.isprintable() or not value) else "must be printable ASCII in one line"


def _path_fault(path: str) -> str | None:
    rest = PATH_ARGUMENT.sub("", path)
    if "{" in rest or "}" in rest:
        return "has a brace that stands for no argument"
    return "must not have . or .. in its path" if {".", ".."} & set(path.split("/")) or "\\" in path else None


def _ascii_host_fault(host: str) -> str | None:
    if host.isascii() and (fault := host_fault(host)):
        return f"names no host: {fault}"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else None
    except ValueError:
        return None
