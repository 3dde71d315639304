"""API keys: random, shown once, kept as a keyed hash."""

import hmac
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypedDict

from shared.db.database import Connection, Database, Row
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


class KeyChanges(TypedDict, total=False):
    """What is to be different; what is left out stays. ``expires_at`` None: never."""

    name: str
    roles: Sequence[str]
    expires_at: datetime | None


class Keys:
    """Creates, checks and revokes keys. ``secret_key`` keys the hash: a stolen table alone opens nothing."""

    def __init__(self, database: Database, secret_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._secret_key = secret_key.encode()
        self._clock = clock
        self._known: dict[bytes, tuple[float, Principal]] = {}
        """By hash: until when the key need not be looked up again."""
        self._changes = 0

    async def authenticate(self, secret: str) -> Principal:
        """The principal behind a bearer key. Raises InvalidApiKey for an unknown, revoked or expired one.

        What this process does to a key holds at once; what another does holds here within ``KNOWN_FOR_S``, and a key
        that it revoked calls no model in that time.
        """
        key_hash = self._hash(secret)
        until, principal = self._known.get(key_hash, (float("-inf"), None))
        if principal is None or self._clock() >= until:
            principal = await self._find(key_hash)
        return principal

    async def _find(self, key_hash: bytes) -> Principal:
        began, changes = self._clock(), self._changes
        row = await store.find_key(self._database, key_hash)
        if row is None:
            self._known.pop(key_hash, None)
            raise InvalidApiKey("Incorrect API key provided. Create one with `daarion keys create`.")
        principal = Principal(row["id"], row["microdao_id"], frozenset(row["roles"]))
        if changes == self._changes:  # else the row may be from before a change
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            left_s = KNOWN_FOR_S if row["expires_in_s"] is None else min(KNOWN_FOR_S, row["expires_in_s"])
            self._known[key_hash] = (began + left_s, principal)
        return principal

    async def create(
        self,
        microdao_id: str,
        roles: Sequence[str],
        name: str,
        *,
        secret: str | None = None,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make a key for a microDAO; ``secret`` fixes it (for seeds), else it is random."""
        _check_roles(roles)
        _check_expiry(expires_at)
        key = NewKey(new_id("key"), secret or _new_secret())
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
                expires_at=expires_at,
            )
        return key

    async def change(self, by: Principal, key_id: str, changes: KeyChanges) -> Row:
        """Rename a key, give it other roles or another end; the key without its hash.

        Raises NotFound (also for a revoked or expired one), Unauthorized for roles that ``by`` could not have given,
        InvalidRequest.
        """
        _check_roles(changes.get("roles", ()))
        _check_expiry(changes.get("expires_at"))
        async with self._database.tenant(by.microdao_id) as connection:
            row = {**await _managed(connection, by, key_id), **changes}
            check_may_manage(by, row["roles"])
            changed = await store.update_key(connection, key_id, row["name"], row["roles"], row["expires_at"])
        self._forget(key_id)
        return changed or row

    async def rotate(self, by: Principal, key_id: str) -> NewKey:
        """Another secret for the same key; the old one is refused at once.

        Raises NotFound (also for a revoked or expired one), Unauthorized for roles that ``by`` could not have given.
        """
        key = NewKey(key_id, _new_secret())
        async with self._database.tenant(by.microdao_id) as connection:
            await _managed(connection, by, key_id)
            await store.rotate_key(connection, key_id, self._hash(key.secret), key.secret[-4:])
        self._forget(key_id)
        return key

    async def find(self, microdao_id: str, key_id: str) -> Principal:
        """Whom a key stands for. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            row = _found(key_id, await store.lock_key(connection, key_id))
        return Principal(key_id, microdao_id, frozenset(row["roles"]))

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
        self._forget(key_id)

    async def list(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """Keys of a microDAO by id, without their hashes."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_keys(connection, after, limit)

    def _forget(self, key_id: str) -> None:
        self._changes += 1
        self._known = {known: one for known, one in self._known.items() if one[1].key_id != key_id}

    def _hash(self, secret: str) -> bytes:
        return hmac.digest(self._secret_key, secret.encode(), "sha256")


def check_may_manage(principal: Principal, roles: Collection[str]) -> None:
    """Nobody makes, changes or revokes a key above their own. Raises Unauthorized."""
    if "operator" in roles and not principal.is_operator:
        raise Unauthorized("only an operator may create, change or revoke an operator's key")
    if "owner" in roles and not principal.roles & {"owner", "operator"}:
        raise Unauthorized("only an owner may create, change or revoke an owner's key")


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _check_roles(roles: Collection[str]) -> None:
    if unknown := sorted(set(roles) - ROLES):
        raise InvalidRequest(f"unknown role {unknown[0]!r}; roles are {', '.join(sorted(ROLES))}", param="roles")


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("a key must expire in the future", param="expires_at")


async def _managed(connection: Connection, by: Principal, key_id: str) -> Row:
    """The key, held for this transaction. Raises NotFound, Unauthorized."""
    row = _found(key_id, await store.lock_key(connection, key_id))
    check_may_manage(by, row["roles"])
    return row


def _found(key_id: str, row: Row | None) -> Row:
    if row is None:
        raise NotFound(f"no key {key_id!r}")
    return row
