"""After a change of keys: everything that is sealed, in whatever table it lies, is sealed anew with the first key."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.db.database import Connection, Database, Row
from shared.errors import Unavailable
from shared.observability import Log
from shared.tools.secrets import store

if TYPE_CHECKING:
    from shared.tools.secrets.sealing import Sealer

_BATCH = 100
_log = Log("tools")


@dataclass(frozen=True, slots=True)
class SealedRows:
    """A table whose rows hold sealed values, by microDAO and the name that the value is sealed under.

    ``lock`` holds the next rows (``microdao_id``, ``name``, ``sealed``) after the one given, of every microDAO, in the
    order of both; ``replace`` puts the same value, sealed anew, in the place of a row's.
    """

    lock: Callable[[Connection, tuple[str, str], int], Awaitable[list[Row]]]
    replace: Callable[[Connection, str, str, bytes], Awaitable[None]]


TOOL_SECRETS = SealedRows(store.lock_sealed, store.replace_sealed)


class Resealing:
    """Whatever seals values gives its table here, or they are lost when the old key goes."""

    def __init__(self, database: Database, sealer: "Sealer", tables: Sequence[SealedRows]) -> None:
        self._database = database
        self._sealer = sealer
        self._tables = tables

    async def run(self) -> tuple[int, int]:
        """Seal every microDAO's values with the first key, so that older keys can go.

        How many are sealed so now, and how many no key opens: these stay as they are.
        """
        done = lost = 0
        for table in self._tables:
            after: tuple[str, str] | None = ("", "")
            while after is not None:
                resealed, total, after = await self._reseal_batch(table, after)
                done, lost = done + resealed, lost + total - resealed
        return done, lost

    async def _reseal_batch(self, table: SealedRows, after: tuple[str, str]) -> tuple[int, int, tuple[str, str] | None]:
        """How many rows were sealed anew, of how many, and the last one; None when there are no more."""
        async with self._database.system() as connection:
            rows = await table.lock(connection, after, _BATCH)
            resealed = sum([await self._reseal(connection, table, row) for row in rows])
        last = (rows[-1]["microdao_id"], rows[-1]["name"]) if rows else None
        return resealed, len(rows), last

    async def _reseal(self, connection: Connection, table: SealedRows, row: Row) -> bool:
        microdao_id, name = row["microdao_id"], row["name"]
        try:
            sealed = self._sealer.reseal(microdao_id, name, bytes(row["sealed"]))
        except Unavailable:
            _log.warning("secret does not open", microdao_id=microdao_id, secret=name)
            return False
        await table.replace(connection, microdao_id, name, sealed)
        return True
