"""Runs a tool's program inside the jail and tells the host how it went."""

import importlib
import json
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from typing import Any

from shared.tools.sandbox.jail.frames import read_frame, write_frame

_MAX_MESSAGE = 2_000
_FILE = "<tool>"


class HostError(Exception):
    """The host refused or failed what the tool asked of it."""


def serve(channel: int, folder: str) -> None:
    """Read the host's request, run it, send the answer. Never raises for what the tool does."""
    tempfile.tempdir = folder
    request, turn = read_frame(channel), threading.Lock()
    answer = _answer(request, channel, turn)
    _flush()
    turn.acquire()  # a thread may still be asking: its words may not get into ours, and none may follow them
    write_frame(channel, answer)


def _answer(request: dict[str, Any], channel: int, turn: threading.Lock) -> dict[str, Any]:
    try:
        value = _function(request, channel, turn)(request["args"])
        return _value_frame(value, request["result_bytes"])
    except BaseException as error:
        return {"error": {"type": type(error).__name__, "message": _message(error), "line": _line(error)}}


def _value_frame(value: object, result_bytes: int) -> dict[str, Any]:
    """Checked here for a message that helps; the host checks for itself."""
    size = len(json.dumps(value, allow_nan=False))
    if size > result_bytes:
        raise ValueError(f"the result has {size:,} bytes as JSON; {result_bytes:,} are allowed")
    return {"value": value}


def _function(request: dict[str, Any], channel: int, turn: threading.Lock) -> Callable[[Any], object]:
    http_request = _host_function(channel, turn)
    if entrypoint := request.get("entrypoint"):
        module, _, name = entrypoint.partition(":")
        function: Callable[[Any], object] = getattr(importlib.import_module(module), name)
        return function
    namespace: dict[str, Any] = {"__name__": "tool", "http_request": http_request, "HostError": HostError}
    exec(compile(request["code"], _FILE, "exec", dont_inherit=True), namespace)  # noqa: S102 - what the jail is for
    run = namespace.get("run")
    if not callable(run):
        raise NameError("the code must define a function run(args)")
    return run  # type: ignore[no-any-return]


def _host_function(channel: int, turn: threading.Lock) -> Callable[..., Any]:
    """``turn`` is held by whoever speaks with the host: threads that ask at once are answered one after another."""

    def http_request(
        method: str, url: str, headers: dict[str, str] | None = None, json: object = None
    ) -> dict[str, Any]:
        """Have the host make an HTTP request: {status, headers, body}. Raises HostError when it will not."""
        asked = {"method": method, "url": url, "headers": headers or {}, "json": json}
        with turn:
            write_frame(channel, {"call": "http_request", "with": asked})
            answer = read_frame(channel)
        if "refused" in answer:
            raise HostError(answer["refused"])
        result: dict[str, Any] = answer["result"]
        return result

    return http_request


def _message(error: BaseException) -> str:
    """What the exception says, if its author lets it say anything."""
    try:
        return str(error)[:_MAX_MESSAGE]
    except BaseException:
        return ""


def _line(error: BaseException) -> int | None:
    """Where in the tool's code it happened."""
    if isinstance(error, SyntaxError) and error.filename == _FILE:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
    return lines[-1] if lines else None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: S112 - the tool replaced or closed it; that is its own loss
            continue
