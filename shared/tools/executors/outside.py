"""What the executors that call services have in common: secrets opened for a place, redaction, what a failure means."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from shared.db.database import Database
from shared.observability import redacted
from shared.settings import Settings
from shared.tools.model import Invocation, Tool, ToolFailed, ToolUncertain
from shared.tools.web.addresses import Reach, read_reach
from shared.tools.web.errors import BusyService, UnusableAnswer

if TYPE_CHECKING:
    from shared.tools.secrets.sealing import Sealer
    from shared.tools.secrets.secrets import OpenSecrets, Secrets
    from shared.tools.web.client import WebClient
    from shared.tools.web.mcp.client import McpClient

_MARGIN_S = 0.05
"""So much before the execution path would cut it off, an executor ends by itself and says how far it came."""
_MAYBE_DONE = (502, 504)


@dataclass(frozen=True, slots=True)
class Platform:
    """Where the platform's services are, how to get there, and the token that they take."""

    url: str
    client: "WebClient"
    token: str = field(default="", repr=False)


class Outside:
    """The way out for tools. Its parts are made when they are first needed: most functions start without."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._settings = settings

    @cached_property
    def client(self) -> "WebClient":
        """Goes to the public internet, and to the private places that the installation's settings list."""
        from shared.tools.web.client import WebClient

        return WebClient(self._reach)

    @cached_property
    def mcp(self) -> "McpClient":
        """Speaks with MCP servers, in sessions that it keeps."""
        from shared.tools.web.mcp.client import McpClient

        return McpClient(self.client)

    @cached_property
    def platform(self) -> "Platform | None":
        """The platform's own services: its tools may go there, which makes them no private place of tenants' tools."""
        from shared.tools.web.client import WebClient
        from shared.tools.web.redirects import parse_url, place_of

        url = self._settings.platform_url.rstrip("/")
        if not url:
            return None
        client = WebClient(self._reach.with_private(place_of(parse_url(url))))
        return Platform(url, client, self._settings.platform_token)

    @cached_property
    def secrets(self) -> "Secrets":
        """What tools prove themselves with. Raises Unavailable without a key to seal them by."""
        from shared.tools.secrets.secrets import Secrets

        return Secrets(self._database, self.sealer)

    @cached_property
    def sealer(self) -> "Sealer":
        """What seals secrets. Raises Unavailable without a key to seal them by."""
        from shared.tools.secrets.sealing import Sealer

        previous = [key.strip() for key in self._settings.previous_secret_keys.split(",") if key.strip()]
        return Sealer([self._settings.secret_key, *previous])

    @cached_property
    def _reach(self) -> Reach:
        return read_reach(self._settings.tool_ports, self._settings.private_hosts)

    async def close(self) -> None:
        """End what is kept with services."""
        if "mcp" in self.__dict__:
            await self.mcp.close()

    @asynccontextmanager
    async def opened(self, microdao_id: str, names: Iterable[str], url: str) -> AsyncIterator["OpenSecrets"]:
        """Secrets for requests to a URL; what is logged or raised inside holds none of them.

        Raises ToolFailed when one is missing, not bound to the URL's host, or would go over the wire in clear.
        """
        from shared.tools.web.redirects import parse_url, place_of

        wanted, parsed = set(names), parse_url(url)
        place = place_of(parsed)
        if wanted and parsed.scheme != "https" and place not in self.client.reach.private:
            raise ToolFailed("secrets are sent over https only", code="unauthorized")
        secrets = await self.secrets.open(microdao_id, wanted, place) if wanted else _no_secrets()
        with hidden(secrets):
            yield secrets


@contextmanager
def hidden(secrets: "OpenSecrets") -> Iterator[None]:
    """Take secrets out of what is logged and raised inside."""
    with redacted(secrets.redactor.text):
        try:
            yield
        except ToolFailed as failure:
            failure.message = secrets.redactor.text(failure.message)
            failure.args = (failure.message,)
            raise


def deadline_of(tool: Tool, invocation: Invocation) -> float:
    """When the executor has to be done, of the loop's clock."""
    by_timeout = asyncio.get_running_loop().time() + tool.timeout_ms / 1000
    return min(invocation.deadline, by_timeout) - _MARGIN_S


def told_honestly(failure: ToolFailed, *, may_repeat: bool) -> ToolFailed:
    """The failure, as uncertain where the service may have acted: it said yes in words that cannot be read, or a
    gateway before it gave up waiting. Where acting twice is the same as once, it stays what it is.
    """
    if may_repeat or isinstance(failure, ToolUncertain):
        return failure
    if isinstance(failure, UnusableAnswer) and failure.status < 400:
        return ToolUncertain(f"{failure.message}; it may have acted")
    if isinstance(failure, BusyService) and failure.status in _MAYBE_DONE:
        return ToolUncertain(f"{failure.message}; it may have acted", retry_after_s=failure.retry_after_s)
    return failure


def renewal(names: Iterable[str], status: int) -> str:
    """What to do about a service that refuses the caller."""
    quoted = " or ".join(repr(name) for name in sorted(names))
    if not quoted:
        return f"the service wants credentials ({status}); an administrator can give the tool a secret"
    return f"the service refused the secret {quoted} ({status}); an administrator has to renew it"


def _no_secrets() -> "OpenSecrets":
    from shared.tools.secrets.redaction import Redactor
    from shared.tools.secrets.secrets import OpenSecrets

    return OpenSecrets({}, Redactor({}))
