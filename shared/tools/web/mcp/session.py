"""What was agreed with a server. It is no connection: every request of a session has one of its own."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from shared.tools.web.addresses import Place
from shared.tools.web.redirects import parse_url, place_of

if TYPE_CHECKING:
    from mcp.types import DiscoverResult, InitializeResult

_SALT = os.urandom(32)
_AFTER_NEGOTIATION = 100

HeaderMap = Mapping[tuple[str, ...], str]
"""Which arguments (by path) a server wants in headers, too (by name)."""


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """Where a server is, for which microDAO it is asked, and with which headers (secrets in their places)."""

    microdao_id: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> Place:
        """Its host and port. Raises AddressRefused."""
        return place_of(parse_url(self.url))

    def fingerprint(self) -> bytes:
        """The same for the same microDAO, URL and credentials, in this process only; it tells nothing of them."""
        headers = sorted((name.lower(), value) for name, value in self.headers.items())
        said = orjson.dumps([self.microdao_id, self.url, headers])
        return hashlib.blake2b(said, key=_SALT, digest_size=32).digest()


@dataclass(eq=False, slots=True)
class Session:
    """A protocol version, and the id under which the server knows the session (only earlier protocols have one)."""

    server: RemoteServer
    version: str
    agreed: "DiscoverResult | InitializeResult" = field(repr=False)
    id: str = field(default="", repr=False)
    request_ids: Iterator[int] = field(default_factory=lambda: itertools.count(_AFTER_NEGOTIATION), repr=False)
    """No two requests of a session may have the same, whichever conversation they are of."""

    header_maps: dict[str, HeaderMap] = field(default_factory=dict)
    """By the names of the tools whose arguments the server was found to want in headers."""
