"""The one door to Postgres: every statement runs in a transaction that has said whose rows it may see.

The login role inherits nothing, so a statement outside :meth:`Database.tenant` or :meth:`Database.system`
is refused by the server. Role and tenant are set for the transaction only, which connection poolers allow.
"""

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from shared.errors import Unavailable

Connection = AsyncConnection[DictRow]
Row = dict[str, Any]
Result = TypeVar("Result")

TENANT_ROLE = "daarion_tenant"
SYSTEM_ROLE = "daarion_system"
AGENT_ROLE = "daarion_agent"

# Set for the transaction only. What an earlier one found out about its agent is forgotten with that agent. Days are
# UTC's, and moments near the ends of what a datetime holds would pass them in a server's own time zone.
_ENTER = (
    "SELECT set_config('role', %s, true), set_config('daarion.microdao_id', %s, true),"
    " set_config('daarion.agent_id', %s, true), set_config('daarion.user_id', %s, true),"
    " set_config('daarion.read_scopes', '', true), set_config('TimeZone', 'UTC', true)"
)


class Deadlock(Unavailable):
    """The transaction and another one waited for each other, and this one was given up: nothing of it is done."""


class Database:
    """A lazily opened pool of connections. Raises Unavailable when the server cannot be reached.

    ``timeout_s`` is what a connection, the beginning of a transaction and a statement of :meth:`run` may take. It is
    kept on this side: a frozen server keeps no time-outs. Statements inside a transaction may take as long as they do.
    """

    def __init__(
        self, url: str, *, max_size: int = 8, checkout_timeout_s: float = 5.0, timeout_s: float = 10.0
    ) -> None:
        self._checkout_timeout_s = checkout_timeout_s
        self._timeout_s = timeout_s
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=0,
            max_size=max_size,
            timeout=checkout_timeout_s,
            max_idle=60.0,
            open=False,
            connection_class=AsyncConnection[DictRow],
            # Transactions are begun here, so that a single statement can go without BEGIN and COMMIT.
            kwargs={"row_factory": dict_row, "autocommit": True, "connect_timeout": math.ceil(timeout_s)},
        )
        self._opened = False

    @asynccontextmanager
    async def tenant(self, microdao_id: str) -> AsyncIterator[Connection]:
        """A transaction that sees and writes the rows of one microDAO only."""
        async with self._transaction(TENANT_ROLE, microdao_id) as connection:
            yield connection

    @asynccontextmanager
    async def agent(self, microdao_id: str, agent_id: str, user_id: str | None = None) -> AsyncIterator[Connection]:
        """A transaction that sees the memory that one agent may read, and writes what it may write.

        ``user_id``: with that end user's own, of whom it sees nothing otherwise.
        """
        async with self._transaction(AGENT_ROLE, microdao_id, agent_id, user_id or "") as connection:
            yield connection

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Connection]:
        """A transaction across tenants: for keys, sweepers and the usage meter."""
        async with self._transaction(SYSTEM_ROLE, "") as connection:
            yield connection

    async def run(
        self,
        query: LiteralString,
        params: Any = None,
        *,
        microdao_id: str | None = None,
        timeout_s: float | None = None,
    ) -> list[Row]:
        """One statement in a transaction of its own, in one network round trip; its rows.

        It sees one microDAO's rows, or everybody's without ``microdao_id``. When the connection breaks it may be sent
        again, so it must be safe to repeat. The role and the statement are one pipeline, and a pipeline without BEGIN
        is one transaction (PostgreSQL 18 manual, §32.5.1). ``timeout_s`` stands in for the pool's own.
        """
        entry = (TENANT_ROLE, microdao_id, "", "") if microdao_id is not None else (SYSTEM_ROLE, "", "", "")

        async def send(connection: Connection) -> list[Row]:
            async with connection.pipeline():
                await connection.execute(_ENTER, entry)
                cursor = await connection.execute(query, params)
            return await cursor.fetchall() if cursor.description else []

        with _outage_reported():
            connection, rows = await self._check_out(_to_its_end(send), timeout_s or self._timeout_s)
            await self._pool.putconn(connection)
        return rows

    async def call(self, query: LiteralString, params: Any) -> list[Row]:
        """A statement that only calls a function which takes a role itself (``SET role`` in its definition); its rows.

        As ``run``, for what happens on every request: prepared, and nothing but itself to send, it costs half.
        """

        async def send(connection: Connection) -> list[Row]:
            cursor = await connection.execute(query, params, prepare=True)
            return await cursor.fetchall()

        with _outage_reported():
            connection, rows = await self._check_out(send, self._timeout_s)
            await self._pool.putconn(connection)
        return rows

    async def close(self) -> None:
        """Close every connection; the pool cannot be used again."""
        await self._pool.close()

    @asynccontextmanager
    async def _transaction(
        self, role: str, microdao_id: str, agent_id: str = "", user_id: str = ""
    ) -> AsyncIterator[Connection]:
        async def begin(connection: Connection) -> None:
            async with connection.pipeline():  # BEGIN and the tenant travel together
                await connection.execute("BEGIN")
                await connection.execute(_ENTER, (role, microdao_id, agent_id, user_id))

        with _outage_reported():
            connection, _ = await self._check_out(_to_its_end(begin), self._timeout_s)
            try:
                async with connection:  # commits, or rolls back
                    yield connection
            finally:
                await self._pool.putconn(connection)

    async def _check_out(
        self, begin: Callable[[Connection], Awaitable[Result]], timeout_s: float
    ) -> tuple[Connection, Result]:
        """A connection on which ``begin`` has succeeded in time, with its result. One that the server closed while it
        was idle shows only now; then all idle ones are checked and ``begin`` is tried once more."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        if not self._opened:
            self._opened = True
            await self._pool.open()
        try:
            return await self._begin(begin, deadline)
        except _StaleConnection:
            await self._pool.check()
            return await self._begin(begin, deadline)

    async def _begin(
        self, begin: Callable[[Connection], Awaitable[Result]], deadline: float
    ) -> tuple[Connection, Result]:
        left = deadline - asyncio.get_running_loop().time()
        connection = await self._pool.getconn(min(left, self._checkout_timeout_s))
        try:
            with _cut_at(connection, deadline):
                return connection, await begin(connection)
        except BaseException as error:
            is_stale = connection.closed and isinstance(error, psycopg.OperationalError)
            await self._pool.putconn(connection)
            if is_stale:
                raise _StaleConnection from error
            raise


@contextmanager
def _cut_at(connection: Connection, deadline: float) -> Iterator[None]:
    """Break the connection unless the block ends before ``deadline`` (of the loop's clock); raises Unavailable then.

    A cancelled statement would not do: psycopg waits until the server has confirmed it, and a frozen one never does.
    The pool throws a broken connection away.
    """
    is_cut = False

    def cut() -> None:
        nonlocal is_cut
        is_cut = True
        with suppress(OSError, psycopg.OperationalError), socket.socket(fileno=os.dup(connection.fileno())) as link:
            link.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_at(deadline, cut)
    try:
        yield
    except psycopg.OperationalError as error:
        if is_cut:
            raise Unavailable("the database does not answer; try again shortly") from error
        raise
    finally:
        timer.cancel()


def _to_its_end(pipeline: Callable[[Connection], Awaitable[Result]]) -> Callable[[Connection], Awaitable[Result]]:
    """Let a pipeline finish even when its caller is cancelled: one cut short would wait for answers for ever."""

    async def whole(connection: Connection) -> Result:
        task = asyncio.ensure_future(pipeline(connection))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: the cancellation is what counts
            raise

    return whole


class _StaleConnection(psycopg.OperationalError):
    """The server had closed the connection."""


@contextmanager
def _outage_reported() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.DeadlockDetected as error:
        raise Deadlock("another change of the same thing came in between; try again") from error
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise Unavailable("the database cannot be reached; try again shortly") from error


async def act_for(connection: Connection, user_id: str | None) -> None:
    """Let an agent's transaction go on for another of its end users, or for nobody in particular."""
    await connection.execute(
        "SELECT set_config('daarion.user_id', %s, true), set_config('daarion.read_scopes', '', true)", (user_id or "",)
    )


@asynccontextmanager
async def as_tenant(connection: Connection) -> AsyncIterator[None]:
    """Let an agent's transaction see all of its microDAO for a while: to hold rows in an order that is everybody's."""
    await connection.execute("SELECT set_config('role', %s, true)", (TENANT_ROLE,))
    yield  # not in a finally: after an error the transaction takes no statement, and ends
    await connection.execute("SELECT set_config('role', %s, true)", (AGENT_ROLE,))


async def fetch_one(connection: Connection, query: str, params: Any = None) -> Row | None:
    """The first row, or None."""
    cursor = await connection.execute(query, params)
    return await cursor.fetchone()


async def fetch_all(connection: Connection, query: str, params: Any = None) -> list[Row]:
    """Every row."""
    cursor = await connection.execute(query, params)
    return await cursor.fetchall()
