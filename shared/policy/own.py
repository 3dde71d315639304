"""The policies that a microDAO adds to the shipped ones: written, listed, with their history."""

import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from psycopg.errors import ForeignKeyViolation, UniqueViolation

from shared.db.database import Connection, Database, Row
from shared.errors import Conflict, ErrorDetail, InvalidRequest, LimitExceeded, NotFound
from shared.ids import new_id
from shared.policy import store_policies
from shared.policy.check import find_faults
from shared.policy.known import KnownPolicies
from shared.policy.principal import Principal

MAX_POLICIES: Final = 50


class OwnPolicyBook:
    """Each method works in the microDAO of ``by`` or of its argument. A change holds at once in this process and
    within ``known.KNOWN_FOR_S`` in every other."""

    def __init__(self, database: Database, known: KnownPolicies) -> None:
        self._database = database
        self._known = known

    async def create(self, by: Principal, name: str, description: str, source: str, active: bool) -> Row:
        """Add a policy. Raises InvalidRequest (with the lines), Conflict (name), LimitExceeded."""
        _check(source)
        async with self._change(by) as connection:
            if await store_policies.count(connection) >= MAX_POLICIES:
                raise LimitExceeded(f"a microDAO has at most {MAX_POLICIES} policies")
            policy_id = new_id("pol")
            row = await store_policies.insert(connection, by.microdao_id, policy_id, name, description, source, active)
            if row is None:
                raise Conflict(f"there is a policy {name!r} already", param="name")
            await store_policies.remember(connection, by.microdao_id, row, "created", by.key_id)
        return row

    async def replace(
        self, by: Principal, policy_id: str, name: str, description: str, source: str, active: bool
    ) -> Row:
        """Make it a new version. Raises InvalidRequest (with the lines), NotFound, Conflict (name)."""
        _check(source)
        async with self._change(by) as connection:
            try:
                row = await store_policies.update(connection, policy_id, name, description, source, active)
            except UniqueViolation:
                raise Conflict(f"there is another policy {name!r}", param="name") from None
            row = _found(policy_id, row)
            await store_policies.remember(connection, by.microdao_id, row, "changed", by.key_id)
        return row

    async def delete(self, by: Principal, policy_id: str) -> None:
        """Take a policy away; its history stays. Raises NotFound."""
        async with self._change(by) as connection:
            row = _found(policy_id, await store_policies.delete(connection, policy_id))
            await store_policies.remember(connection, by.microdao_id, row, "deleted", by.key_id)

    async def get(self, microdao_id: str, policy_id: str) -> Row:
        """One policy. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            return _found(policy_id, await store_policies.find(connection, policy_id))

    async def list(self, microdao_id: str, after: str, limit: int) -> builtins.list[Row]:
        """By id."""
        async with self._database.tenant(microdao_id) as connection:
            return await store_policies.list_page(connection, after, limit)

    async def versions(self, microdao_id: str, policy_id: str, before: int, limit: int) -> builtins.list[Row]:
        """What a policy was, newest first, also when it is deleted. Raises NotFound for one that never was."""
        async with self._database.tenant(microdao_id) as connection:
            rows = await store_policies.list_versions(connection, policy_id, before, limit)
            if not rows and not await store_policies.list_versions(connection, policy_id, MAX_VERSION, 1):
                raise NotFound(f"no policy {policy_id!r}")
        return rows

    @asynccontextmanager
    async def _change(self, by: Principal) -> AsyncIterator[Connection]:
        try:
            async with self._database.tenant(by.microdao_id) as connection:
                await store_policies.next_version(connection, by.microdao_id)
                yield connection
        except ForeignKeyViolation:
            raise NotFound(f"no microDAO {by.microdao_id!r}", param="microdao_id") from None
        finally:  # also when nobody knows whether the commit arrived
            self._known.forget(by.microdao_id)


MAX_VERSION: Final = 2**31 - 1


def _check(source: str) -> None:
    if faults := find_faults(source):
        details = [ErrorDetail(f"source, line {fault.line}", fault.message) for fault in faults]
        raise InvalidRequest(f"line {faults[0].line}: {faults[0].message}", param="source", details=details)


def _found(policy_id: str, row: Row | None) -> Row:
    if row is None:
        raise NotFound(f"no policy {policy_id!r}")
    return row
