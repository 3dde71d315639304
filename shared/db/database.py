"""The one door to Postgres: every statement runs in a transaction that has said whose rows it may see.

The login role inherits nothing, so a statement outside :meth:`Database.tenant` or :meth:`Database.system`
is refused by the server. Role and tenant are set for the transaction only, which connection poolers allow.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shared.errors import Unavailable

Connection = AsyncConnection[DictRow]
Row = dict[str, Any]

TENANT_ROLE = "daarion_tenant"
SYSTEM_ROLE = "daarion_system"

_ENTER = "SELECT set_config('role', %s, true), set_config('daarion.microdao_id', %s, true)"


class Database:
    """A lazily opened pool of connections. Raises Unavailable when the server cannot be reached."""

    def __init__(self, url: str, *, max_size: int = 8, checkout_timeout_s: float = 5.0) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=0,
            max_size=max_size,
            timeout=checkout_timeout_s,
            max_idle=60.0,
            open=False,
            check=AsyncConnectionPool.check_connection,
            connection_class=AsyncConnection[DictRow],
            kwargs={"row_factory": dict_row},
        )
        self._opened = False

    @asynccontextmanager
    async def tenant(self, microdao_id: str) -> AsyncIterator[Connection]:
        """A transaction that sees and writes the rows of one microDAO only."""
        async with self._transaction(TENANT_ROLE, microdao_id) as connection:
            yield connection

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Connection]:
        """A transaction across tenants: for keys, sweepers and the usage meter."""
        async with self._transaction(SYSTEM_ROLE, "") as connection:
            yield connection

    async def close(self) -> None:
        """Close every connection; the pool cannot be used again."""
        await self._pool.close()

    @asynccontextmanager
    async def _transaction(self, role: str, microdao_id: str) -> AsyncIterator[Connection]:
        try:
            if not self._opened:
                self._opened = True
                await self._pool.open()
            async with self._pool.connection() as connection:
                async with connection.pipeline():  # BEGIN and the tenant travel together
                    await connection.execute(_ENTER, (role, microdao_id))
                yield connection
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise Unavailable("the database cannot be reached; try again shortly") from error


async def fetch_one(connection: Connection, query: str, params: Any = None) -> Row | None:
    """The first row, or None."""
    cursor = await connection.execute(query, params)
    return await cursor.fetchone()


async def fetch_all(connection: Connection, query: str, params: Any = None) -> list[Row]:
    """Every row."""
    cursor = await connection.execute(query, params)
    return await cursor.fetchall()
