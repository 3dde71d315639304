"""API keys: random, shown once, kept as a keyed hash."""

import hmac
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from shared.db.database import Database, Row
from shared.errors import InvalidApiKey, InvalidRequest, NotFound, Unauthorized
from shared.ids import new_id
from shared.policy import store
from shared.policy.principal import Principal
from shared.policy.roles import ROLES

PREFIX = "sk-daarion-"
KNOWN_FOR_S: Final = 2.0
"""How long a key that was found need not be looked up again. Admission asks anew for every model call."""
_MOST_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment when its secret is known."""

    id: str
    secret: str


class Keys:
    """Creates, checks and revokes keys. ``secret_key`` keys the hash: a stolen table alone opens nothing."""

    def __init__(self, database: Database, secret_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._secret_key = secret_key.encode()
        self._clock = clock
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._revocations = 0

    async def authenticate(self, secret: str) -> Principal:
        """The principal behind a bearer key. Raises InvalidApiKey for an unknown or revoked one.

        A key that this process revokes is refused at once; one that another process revokes passes here for at most
        ``KNOWN_FOR_S`` more, and calls no model in that time.
        """
        key_hash = self._hash(secret)
        found_at, principal = self._known.get(key_hash, (float("-inf"), None))
        if principal is None or self._clock() - found_at >= KNOWN_FOR_S:
            principal = await self._find(key_hash)
        return principal

    async def _find(self, key_hash: bytes) -> Principal:
        began, revocations = self._clock(), self._revocations
        row = await store.find_key(self._database, key_hash)
        if row is None:
            self._known.pop(key_hash, None)
            raise InvalidApiKey("Incorrect API key provided. Create one with `daarion keys create`.")
        principal = Principal(row["id"], row["microdao_id"], frozenset(row["roles"]))
        if revocations == self._revocations:  # else the row may be from before a revocation
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key_hash] = (began, principal)
        return principal

    async def create(self, microdao_id: str, roles: Sequence[str], name: str, *, secret: str | None = None) -> NewKey:
        """Make a key for a microDAO; ``secret`` fixes it (for seeds), else it is random."""
        if unknown := sorted(set(roles) - ROLES):
            raise InvalidRequest(f"unknown role {unknown[0]!r}; roles are {', '.join(sorted(ROLES))}", param="roles")
        key = NewKey(new_id("key"), secret or PREFIX + secrets.token_urlsafe(32))
        async with self._database.system() as connection:
            if not await store.microdao_exists(connection, microdao_id):
                raise NotFound(f"no microDAO {microdao_id!r}", param="microdao_id")
            await store.insert_key(
                connection,
                key_id=key.id,
                microdao_id=microdao_id,
                name=name,
                key_hash=self._hash(key.secret),
                hint=key.secret[-4:],
                roles=roles,
            )
        return key

    async def revoke(self, microdao_id: str, key_id: str, *, by: Principal | None = None) -> None:
        """Revoke a key at once, for ``by`` or for the platform itself.

        Raises NotFound for another tenant's, Unauthorized for one whose roles ``by`` could not have given.
        """
        async with self._database.tenant(microdao_id) as connection:
            roles = await store.revoke_key(connection, key_id)
            if roles is None:
                raise NotFound(f"no key {key_id!r}")
            if by is not None:
                check_may_manage(by, roles)  # raising undoes the revocation
        self._revocations += 1
        self._known = {known: one for known, one in self._known.items() if one[1].key_id != key_id}

    async def list(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """Keys of a microDAO by id, without their hashes."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_keys(connection, after, limit)

    def _hash(self, secret: str) -> bytes:
        return hmac.digest(self._secret_key, secret.encode(), "sha256")


def check_may_manage(principal: Principal, roles: Collection[str]) -> None:
    """Nobody makes or revokes a key above their own. Raises Unauthorized."""
    if "operator" in roles and not principal.is_operator:
        raise Unauthorized("only an operator may create or revoke an operator's key")
    if "owner" in roles and not principal.roles & {"owner", "operator"}:
        raise Unauthorized("only an owner may create or revoke an owner's key")
