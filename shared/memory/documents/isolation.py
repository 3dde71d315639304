"""Reading a document in a process of its own, which a hostile one can fill or stall without harm to ours.

No parser is safe from input made to hang it: 40,000 nested ``<div>`` hold up the HTML5 algorithm for 6 s, and a PDF can
ask for the same stream again and again. Limits within a process cannot stop native code; a process can be ended. It
has bounds on memory and processor time, no environment (thus no secrets), and starts in about 0.3 s.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import orjson

from shared.errors import ApiError, InvalidRequest, TooLarge
from shared.memory.documents.clean import decode
from shared.memory.documents.limits import MAX_MEMORY_BYTES
from shared.memory.documents.model import Block, ParsedDocument

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE")
_OUT_OF_MEMORY = 77
"""Exit code."""
_ERRORS: dict[str, type[ApiError]] = {error.__name__: error for error in (InvalidRequest, TooLarge)}


def parse_isolated(data: bytes, media_type: str, *, time_limit_s: float) -> ParsedDocument:
    """What a child makes of ``data``. Raises InvalidRequest or TooLarge, and RuntimeError when the fault is ours."""
    command = [sys.executable, "-P", "-m", __name__, media_type, str(time_limit_s)]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=time_limit_s, env=environment)  # noqa: S603
    except subprocess.TimeoutExpired:
        _raise_slow(time_limit_s)
    if done.returncode == _OUT_OF_MEMORY:
        raise TooLarge(
            f"content takes more than {MAX_MEMORY_BYTES:,} bytes of memory to read; split it", param="content"
        )
    if done.returncode > 0:
        raise RuntimeError(f"the document reader failed: {done.stderr.decode(errors='replace')[-2_000:]}")
    if done.returncode:
        _raise_slow(time_limit_s)
    return _received(done.stdout)


def _raise_slow(time_limit_s: float) -> NoReturn:
    """By time, or by a signal: the system's for processor time and memory, or a parser's crash."""
    raise TooLarge(
        f"content cannot be read within {time_limit_s:g} s and its share of memory; split it", param="content"
    )


def _received(answer: bytes) -> ParsedDocument:
    body = orjson.loads(answer)
    if "error" in body:
        raise _ERRORS[body["error"]](body["message"], param="content")
    return ParsedDocument(body["title"], tuple(Block(*fields) for fields in body["blocks"]))


def _read(data: bytes, media_type: str) -> ParsedDocument:
    if media_type == "application/pdf":
        from shared.memory.documents.parse_pdf import parse_pdf

        return parse_pdf(data)
    parse: Callable[[str], ParsedDocument]
    if media_type == "text/html":
        from shared.memory.documents.parse_html import parse_html as parse
    else:
        from shared.memory.documents.parse_markdown import parse_markdown as parse
    return parse(decode(data))


def _answer(data: bytes, media_type: str) -> dict[str, Any]:
    try:
        document = _read(data, media_type)
    except ApiError as error:
        return {"error": type(error).__name__, "message": error.message}
    fields = [(block.kind, block.text, block.level, block.page) for block in document.blocks]
    return {"title": document.title, "blocks": fields}


def _confine(time_limit_s: float) -> None:
    """Bounds this process for good; a bound that the system has set lower stays."""
    seconds = int(time_limit_s) + 1
    bounds = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)]
    if sys.platform == "linux":  # macOS refuses to bound address space
        bounds.append((resource.RLIMIT_AS, MAX_MEMORY_BYTES))
    for kind, bound in bounds:
        _, hard = resource.getrlimit(kind)
        lower = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (lower, lower))


def _main(media_type: str, time_limit_s: str) -> None:
    import logging

    logging.disable()  # a broken file can bring millions of warnings
    _confine(float(time_limit_s))
    try:
        answer = orjson.dumps(_answer(sys.stdin.buffer.read(), media_type))
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # at once: an orderly end takes memory, too
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
