"""What a python tool's config may hold.

code          Python that defines run(args)                                  } one of the two
entrypoint    package.module:function, in a module that the operator allows  }
runtime       python, or monty for the light interpreter
memory_mb     16 to 512
hosts         hosts that http_request may reach: api.example.com, *.example.com
secret_ref, headers   as an http tool's; the host adds them to each request
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import InvalidRequest
from shared.tools.executors.http_config import check_http_config

MAX_CODE_BYTES = 200_000
_FIELDS = {"code", "entrypoint", "runtime", "memory_mb", "hosts", "secret_ref", "headers"}
_ENTRYPOINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HOST = re.compile(r"(?:\*\.)?[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?")
_MAX_HOSTS = 20


def check_python_config(config: Mapping[str, Any]) -> None:
    """Raises InvalidRequest whose ``param`` is the path of the field at fault (``config.hosts``)."""
    for field, fault in _faults(config):
        raise InvalidRequest(f"config.{field}: {fault}", param=f"config.{field}")
    sent = {name: config[name] for name in ("headers", "secret_ref") if name in config}
    check_http_config({**sent, "url": "https://host.invalid/"}, {})


def _faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in sorted(set(config) - _FIELDS):
        yield name, f"is unknown; there are {', '.join(sorted(_FIELDS))}"
    yield from _program_faults(config)
    memory_mb = config.get("memory_mb", 16)
    if not isinstance(memory_mb, int) or isinstance(memory_mb, bool) or not 16 <= memory_mb <= 512:
        yield "memory_mb", "must be a whole number from 16 to 512"
    hosts = config.get("hosts", [])
    if not isinstance(hosts, list) or len(hosts) > _MAX_HOSTS:
        yield "hosts", f"must be a list of {_MAX_HOSTS} hosts at most"
    elif not all(isinstance(host, str) and _HOST.fullmatch(host) for host in hosts):
        yield "hosts", "must be host names without scheme and port, such as api.example.com or *.example.com"


def _program_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    code, entrypoint, runtime = config.get("code"), config.get("entrypoint"), config.get("runtime", "python")
    if runtime not in ("python", "monty"):
        yield "runtime", "must be python or monty"
    if (code is None) == (entrypoint is None):
        yield "code", "give either code or an entrypoint"
    elif code is not None:
        yield from (("code", fault) for fault in _code_faults(code))
    elif not isinstance(entrypoint, str) or not _ENTRYPOINT.fullmatch(entrypoint):
        yield "entrypoint", "must be package.module:function"
    elif runtime == "monty":
        yield "entrypoint", "needs the runtime python"


def _code_faults(code: object) -> Iterator[str]:
    """It is not compiled here: only the sandbox parses what strangers write."""
    if not isinstance(code, str) or not code.strip():
        yield "must be Python that defines run(args)"
    elif len(code.encode(errors="replace")) > MAX_CODE_BYTES:
        yield f"may have {MAX_CODE_BYTES:,} bytes"
    elif not re.search(r"\brun\b", code):
        yield "must define a function run(args)"
