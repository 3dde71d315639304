"""A microDAO's secrets: set and listed by its administrators, opened for a tool that calls a host they are bound to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.db.database import Database, Row
from shared.errors import InvalidRequest, LimitExceeded, NotFound
from shared.observability import Log
from shared.policy.principal import Principal
from shared.tools.model import ToolFailed
from shared.tools.secrets import store
from shared.tools.secrets.redaction import Redactor
from shared.tools.secrets.sealing import Sealer
from shared.tools.web.addresses import Place, parse_place

MAX_SECRETS = 200
MIN_VALUE = 8
MAX_VALUE = 8192
_HTTPS = 443

_log = Log("tools")


@dataclass(frozen=True, slots=True)
class OpenSecrets:
    """Values by name, and what takes them out of texts again."""

    values: dict[str, str] = field(repr=False)
    redactor: Redactor = field(repr=False)

    @classmethod
    def of(cls, values: dict[str, str]) -> "OpenSecrets":
        """With the redactor that belongs to them."""
        return cls(values, Redactor(values))


class Secrets:
    """Each method works in one microDAO and sees nothing of another. No method but ``open`` returns a value."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def put(self, principal: Principal, name: str, value: str, hosts: Sequence[str]) -> Row:
        """Set a secret. Its hosts change only together with its value: who may set it need not know it.

        Raises InvalidRequest, LimitExceeded.
        """
        check_value(value)
        places = [str(place) for place in bound_places(hosts)]
        microdao_id = principal.microdao_id
        sealed = self._sealer.seal(microdao_id, name, value)
        async with self._database.tenant(microdao_id) as connection:
            if await store.count_secrets(connection, name) >= MAX_SECRETS:
                raise LimitExceeded(f"a microDAO may have {MAX_SECRETS} secrets")
            row = await store.put_secret(
                connection, microdao_id, name, sealed=sealed, hosts=places, changed_by=principal.key_id
            )
        _log.info("secret set", microdao_id=microdao_id, secret=name, principal=principal.key_id)
        return row

    async def get(self, microdao_id: str, name: str) -> Row:
        """What may be shown of a secret. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.find_secret(connection, name)
        if row is None:
            raise NotFound(f"no secret {name!r}", param="name")
        return row

    async def list(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """What may be shown of each, by name."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_secrets(connection, after, limit)

    async def delete(self, principal: Principal, name: str) -> None:
        """Forget a secret: tools that need it fail from now on. Raises NotFound."""
        async with self._database.tenant(principal.microdao_id) as connection:
            if not await store.delete_secret(connection, name):
                raise NotFound(f"no secret {name!r}", param="name")
        _log.info("secret deleted", microdao_id=principal.microdao_id, secret=name, principal=principal.key_id)

    async def open(self, microdao_id: str, names: Iterable[str], place: Place) -> OpenSecrets:
        """The values, for a request to ``place``.

        Raises ToolFailed (``unauthorized``) for one that is not there or not bound to the place, and Unavailable.
        """
        wanted = sorted(names)
        if not wanted:
            return OpenSecrets.of({})
        async with self._database.tenant(microdao_id) as connection:
            rows = {row["name"]: row for row in await store.use_secrets(connection, wanted)}
        for name in wanted:
            _check_use(name, rows.get(name), place)
        opened = {name: self._sealer.open(microdao_id, name, bytes(rows[name]["sealed"])) for name in wanted}
        return OpenSecrets.of(opened)


def check_value(value: str) -> None:
    """Raises InvalidRequest for what could not be sent in a header, or not be told apart from other text."""
    if not MIN_VALUE <= len(value) <= MAX_VALUE:
        raise InvalidRequest(f"value must have {MIN_VALUE} to {MAX_VALUE} characters", param="value")
    if not value.isprintable() or value != value.strip():
        raise InvalidRequest("value must hold no control characters and no space at its ends", param="value")


def bound_places(hosts: Sequence[str]) -> list[Place]:
    """The places that hosts stand for; one without a port is for https. Raises InvalidRequest naming what is none."""
    places = []
    for index, host in enumerate(hosts):
        try:
            places.append(parse_place(host, _HTTPS))
        except ValueError as error:
            raise InvalidRequest(str(error), param=f"hosts.{index}") from None
    return list(dict.fromkeys(places))


def _check_use(name: str, row: dict[str, Any] | None, place: Place) -> None:
    if row is None:
        raise ToolFailed(f"the secret {name!r} is not set; an administrator has to set it", code="unauthorized")
    if str(place) not in row["hosts"]:
        raise ToolFailed(f"the secret {name!r} is not bound to {place}; it was not sent", code="unauthorized")
