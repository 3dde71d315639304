"""What an agent's transaction sees of its end users' memory, tried as an adversary who may run any SQL in it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import Database, act_for, fetch_all, fetch_one
from shared.ids import new_id
from shared.memory.model import Filters
from shared.memory.search import store_scopes
from tests import any_rows

A, B, TEAM = "agent:a", "agent:b", "team:x"
OLENA, IHOR = "olena", "ihor"
READ_ONLY = {"memory_large_scope"}
SCOPE = "INSERT INTO memory_scope (microdao_id, kind, name, agent_id) VALUES (%s, %s, %s, %s)"


@dataclass(frozen=True)
class World:
    """Two tenants with the same names; in one a row in every table of what A keeps for Olena."""

    database: Database
    microdao: str
    twin: str
    rows: dict[str, dict[str, Any]]
    scope: int

    async def seen(self, table: str, agent: str, user: str | None, microdao: str | None = None) -> int:
        async with self.database.agent(self.microdao if microdao is None else microdao, agent, user) as connection:
            return len(await fetch_all(connection, f"SELECT 1 FROM {table} WHERE scope_id = {self.scope}"))

    async def tried(
        self, agent: str, user: str | None, statement: str, values: Any = (), microdao: str | None = None
    ) -> int | None:
        """How many rows a statement touches; None when it is refused for want of rights."""
        async with self.database.agent(self.microdao if microdao is None else microdao, agent, user) as connection:
            try:
                return (await connection.execute(statement, values)).rowcount
            except psycopg.errors.InsufficientPrivilege:
                return None
            finally:
                await connection.rollback()

    async def changed(self, table: str, agent: str, user: str | None, microdao: str | None = None) -> list[int | None]:
        return [
            await self.tried(agent, user, f"{verb} WHERE scope_id = {self.scope}", (), microdao)
            for verb in (f"UPDATE {table} SET scope_id = scope_id", f"DELETE FROM {table}")
        ]

    async def is_closed(self, table: str, agent: str, user: str | None, microdao: str | None = None) -> bool:
        """Nothing is seen, changed, deleted or added."""
        row = self.rows[table]
        insert = any_rows.insert_statement(table, row)
        added = [
            await self.tried(agent, user, insert + suffix, row, microdao)
            for suffix in ("", " ON CONFLICT DO NOTHING", " ON CONFLICT DO NOTHING RETURNING *")
        ]
        changed = set(await self.changed(table, agent, user, microdao))
        return not await self.seen(table, agent, user, microdao) and added == [None] * 3 and changed <= {0, None}

    async def share(self, access: str, kind: str, grantee: str) -> None:
        async with self.database.tenant(self.microdao) as connection:
            await connection.execute(
                "INSERT INTO memory_grant (id, microdao_id, scope_id, grantee_kind, grantee, access)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                (new_id("grant"), self.microdao, self.scope, kind, grantee, access),
            )


@pytest.fixture
async def world(postgres: EmbeddedPostgres, database: Database) -> AsyncIterator[World]:
    microdao, twin = (f"microdao:{new_id('users')}" for _ in range(2))
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for one in (microdao, twin):
            any_rows.make_tenant(connection, one, A, B)
            connection.execute("INSERT INTO team (microdao_id, team_id, name) VALUES (%s, %s, 'X')", (one, TEAM))
        connection.execute(SCOPE, (microdao, "user", OLENA, A))
        tables = [one["name"] for one in any_rows.protected_tables(connection) if one["has_scope"]]
        with any_rows.every_table_filled(connection, microdao, A, OLENA) as fixed:
            connection.execute("DELETE FROM memory_grant WHERE microdao_id = %s", (microdao,))
            connection.execute("DELETE FROM team_member WHERE microdao_id = %s", (microdao,))
            rows = {
                table: any_rows.any_row(connection, table, fixed)
                for table in tables
                if table not in ("memory_scope", "memory_grant")
            }
            yield World(database, microdao, twin, rows, fixed["scope_id"])


async def test_only_the_agent_that_acts_for_a_user_sees_and_writes_that_users_rows(world: World):
    strangers = {
        "nobody in particular": (world.microdao, A, None),
        "an empty user": (world.microdao, A, ""),
        "another user": (world.microdao, A, IHOR),
        "a pattern": (world.microdao, A, "%"),
        "another case": (world.microdao, A, "Olena"),
        "the agent's own id": (world.microdao, A, A),
        "the user with another agent": (world.microdao, B, OLENA),
        "the same names in another tenant": (world.twin, A, OLENA),
        "an agent that does not exist": (world.microdao, "agent:nobody", OLENA),
        "no agent": (world.microdao, "", OLENA),
        "no tenant": ("", A, OLENA),
    }
    for table in world.rows:
        assert await world.seen(table, A, OLENA) == 1, table
        assert await world.changed(table, A, OLENA) == ([None, None] if table in READ_ONLY else [1, 1]), table
        for who, (microdao, agent, user) in strangers.items():
            assert await world.is_closed(table, agent, user, microdao), f"{table}: {who}"


async def test_no_grant_opens_a_users_memory(world: World):
    async with world.database.tenant(world.microdao) as connection:
        await connection.execute("INSERT INTO team_member VALUES (%s, %s, %s)", (world.microdao, TEAM, B))
    for kind, grantee in (("agent", B), ("agent", A), ("team", TEAM)):
        await world.share("write", kind, grantee)
    for table in world.rows:
        for agent, user in ((B, None), (B, OLENA), (B, IHOR), (A, None), (A, IHOR)):
            assert await world.is_closed(table, agent, user), f"{table}: {agent} for {user}"


async def test_an_agent_does_not_learn_which_users_there_are(world: World):
    async with world.database.tenant(world.microdao) as connection:
        await connection.execute(SCOPE, (world.microdao, "user", IHOR, A))
        await connection.execute(SCOPE, (world.microdao, "user", OLENA, B))
    seen = {}
    for agent, user in ((A, None), (A, OLENA), (A, "nina"), (B, OLENA), (B, IHOR)):
        async with world.database.agent(world.microdao, agent, user) as connection:
            rows = await fetch_all(connection, "SELECT agent_id, name FROM memory_scope WHERE kind = 'user'")
            everyones = await fetch_all(connection, "SELECT 1 FROM memory_scope WHERE kind <> 'user'")
        seen[agent, user] = [(row["agent_id"], row["name"]) for row in rows]
        assert len(everyones) == 4, "its microDAO's, its team's and both agents'"
    assert seen == {
        (A, None): [],
        (A, OLENA): [(A, OLENA)],
        (A, "nina"): [],
        (B, OLENA): [(B, OLENA)],
        (B, IHOR): [],
    }


async def test_an_agent_makes_the_scope_of_its_own_user_and_no_other(world: World):
    assert await world.tried(A, IHOR, SCOPE, (world.microdao, "user", IHOR, A)) == 1
    for microdao, kind, name, agent in (
        (world.microdao, "user", "nina", A),
        (world.microdao, "user", IHOR, B),
        (world.twin, "user", IHOR, A),
        (world.microdao, "agent", IHOR, None),
        (world.microdao, "team", IHOR, None),
        (world.microdao, "microdao", IHOR, None),
    ):
        assert await world.tried(A, IHOR, SCOPE, (microdao, kind, name, agent)) is None, (kind, name, agent)
    for user in (None, ""):
        assert await world.tried(A, user, SCOPE, (world.microdao, "user", "nina", A)) is None
    numbered = (
        "INSERT INTO memory_scope (scope_id, microdao_id, kind, name, agent_id) OVERRIDING SYSTEM VALUE"
        " VALUES (2000000000, %s, 'user', %s, %s)"
    )
    assert await world.tried(A, IHOR, numbered, (world.microdao, IHOR, A)) is None
    for statement in ("UPDATE memory_scope SET name = 'x'", "DELETE FROM memory_scope"):
        assert await world.tried(A, OLENA, statement) is None


async def test_a_users_scope_has_an_agent_and_a_name_and_is_there_once(world: World):
    for row, error in (
        (("user", "nina", None), psycopg.errors.CheckViolation),
        (("user", "", A), psycopg.errors.CheckViolation),
        (("agent", "agent:new", A), psycopg.errors.CheckViolation),
        (("person", "nina", A), psycopg.errors.CheckViolation),
        (("user", "nina", "agent:nobody"), psycopg.errors.ForeignKeyViolation),
        (("user", OLENA, A), psycopg.errors.UniqueViolation),
        (("team", TEAM, None), psycopg.errors.UniqueViolation),
    ):
        with pytest.raises(error):
            async with world.database.tenant(world.microdao) as connection:
                await connection.execute(SCOPE, (world.microdao, *row))


async def test_an_agent_goes_with_its_users(world: World):
    """Words and vectors too, of which no reference knows."""
    async with world.database.system() as connection:
        for table in ("memory_posting", "memory_embedding", "memory_use", "memory_unembeddable"):
            await connection.execute(
                f"UPDATE {table} t SET item = i.number FROM memory_item i WHERE i.scope_id = %s AND t.scope_id = %s",
                (world.scope, world.scope),
            )
        await connection.execute(SCOPE, (world.microdao, "user", OLENA, B))
        others = await fetch_all(
            connection,
            "SELECT DISTINCT conrelid::regclass::text AS name FROM pg_constraint WHERE confrelid = 'agent'::regclass"
            " AND confdeltype = 'a' AND conrelid <> 'memory_item'::regclass",
        )
        for table in others:  # what keeps an agent from going; its memory does not
            await connection.execute(f"DELETE FROM {table['name']} WHERE microdao_id = %s", (world.microdao,))
    async with world.database.tenant(world.microdao) as connection:
        await connection.execute("DELETE FROM agent WHERE agent_id = %s", (A,))
    async with world.database.system() as connection:
        for table in (*world.rows, "memory_scope"):
            assert await fetch_all(connection, f"SELECT 1 FROM {table} WHERE scope_id = {world.scope}") == [], table
        left = await fetch_all(
            connection, "SELECT agent_id FROM memory_scope WHERE microdao_id = %s AND kind = 'user'", (world.microdao,)
        )
    assert left == [{"agent_id": B}]


async def test_a_snapshot_with_users_is_seen_by_its_agent_alone(world: World):
    async with world.database.system() as connection:
        own = await fetch_one(
            connection,
            "SELECT scope_id FROM memory_scope WHERE microdao_id = %s AND kind = 'agent' AND name = %s",
            (world.microdao, A),
        )
        assert own
        await connection.execute(
            "UPDATE memory_snapshot SET scope_id = %s WHERE scope_id = %s", (own["scope_id"], world.scope)
        )
    world = replace(world, scope=own["scope_id"])
    await world.share("write", "agent", B)
    assert await world.seen("memory_snapshot", B, None) == 1
    async with world.database.system() as connection:
        await connection.execute("UPDATE memory_snapshot SET users = 1 WHERE scope_id = %s", (world.scope,))
    for user in (None, OLENA):
        assert await world.seen("memory_snapshot", B, user) == 0
        assert set(await world.changed("memory_snapshot", B, user)) == {0}
    row = world.rows["memory_snapshot"] | {"scope_id": world.scope, "users": 1, "id": new_id("snap")}
    insert = any_rows.insert_statement("memory_snapshot", row)
    assert await world.tried(B, None, insert, row) is None
    assert await world.tried(A, None, insert, row) == 1
    assert await world.seen("memory_snapshot", A, None) == 1


@pytest.fixture
async def one_connection(world: World, database_url: str) -> AsyncIterator[World]:
    """The same world, where every transaction gets the same connection."""
    database = Database(database_url, max_size=1)
    yield replace(world, database=database)
    await database.close()


async def test_a_user_ends_with_the_transaction(one_connection: World):
    world = one_connection

    async def seen(agent: str, user: str | None) -> tuple[int, int]:
        async with world.database.agent(world.microdao, agent, user) as connection:
            await store_scopes.read_scopes(connection, 1, Filters())  # which keeps what may be read
            query = "SELECT count(*) AS seen, pg_backend_pid() AS pid FROM memory_item WHERE scope_id = %s"
            row = await fetch_one(connection, query, (world.scope,))
        assert row
        return row["seen"], row["pid"]

    seen_by = [await seen(A, user) for user in (OLENA, None, IHOR, OLENA)]
    assert [one[0] for one in seen_by] == [1, 0, 0, 1]
    assert len({one[1] for one in seen_by}) == 1
    async with world.database.agent(world.microdao, A, OLENA) as connection:
        await connection.execute("SELECT set_config('daarion.user_id', %s, false)", (OLENA,))
    assert (await seen(A, None))[0] == 0
    rows = await world.database.run("SELECT current_end_user() AS u", microdao_id=world.microdao)
    assert rows == [{"u": None}]


async def test_a_transaction_goes_on_for_another_user_and_no_longer_for_the_first(world: World):
    statement = f"SELECT 1 FROM memory_item WHERE scope_id = {world.scope}"
    async with world.database.agent(world.microdao, A) as connection:
        seen = []
        for user in (OLENA, IHOR, OLENA, None):
            await act_for(connection, user)
            seen.append(len(await fetch_all(connection, statement)))
            await store_scopes.read_scopes(connection, 1, Filters())
    assert seen == [1, 0, 1, 0]


async def test_what_an_agent_may_write_of_users_is_its_users_alone(world: World):
    async with world.database.agent(world.microdao, A, OLENA) as connection:
        row = await fetch_one(connection, "SELECT agent_scopes('read') AS r, agent_scopes('write') AS w")
        others = await fetch_one(connection, "SELECT array_agg(scope_id) AS r FROM memory_scope WHERE kind <> 'user'")
    assert row
    assert others
    assert world.scope in row["r"]
    assert world.scope in row["w"]
    assert len(row["w"]) == 2, "its own, too"
    assert set(row["r"]) <= {world.scope, *others["r"]}


async def test_what_opens_scopes_does_not_rest_on_what_hides_them(world: World):
    """The function alone, in a role that sees every scope and grant."""
    for kind, grantee in (("agent", B), ("agent", A), ("team", TEAM)):
        await world.share("write", kind, grantee)
    opened = {}
    async with world.database.system() as connection:
        for agent, user in ((A, OLENA), (A, IHOR), (A, ""), (B, OLENA), (B, "")):
            await connection.execute(
                "SELECT set_config('daarion.microdao_id', %s, true), set_config('daarion.agent_id', %s, true),"
                " set_config('daarion.user_id', %s, true)",
                (world.microdao, agent, user),
            )
            row = await fetch_one(connection, "SELECT find_agent_scopes('read') AS r, find_agent_scopes('write') AS w")
            assert row
            opened[agent, user] = (world.scope in row["r"], world.scope in row["w"])
    assert opened == {
        (A, OLENA): (True, True),
        (A, IHOR): (False, False),
        (A, ""): (False, False),
        (B, OLENA): (False, False),
        (B, ""): (False, False),
    }
