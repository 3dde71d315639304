"""What an agent's transaction can do, tried as an adversary who may run any SQL in it: nothing outside its scopes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import AGENT_ROLE, Database, fetch_all, fetch_one
from shared.ids import new_id
from shared.memory.model import Filters
from shared.memory.search import store_scopes
from tests import any_rows

A, B, TEAM = "agent:a", "agent:b", "team:x"

# All that the agent role was ever granted beside the tables whose rows lie in scopes.
GRANTED = {
    "agent": {"SELECT"},
    "memory_scope": {"SELECT"},
    "team_member": {"SELECT"},
    "memory_grant": {"SELECT"},
    "memory_space": {"SELECT"},
    "memory_activity": {"SELECT", "INSERT", "UPDATE"},
    "outbox": {"INSERT"},
}
READ_ONLY = {"memory_large_scope"}
COUNTED = {"memory_use"}  # readers may count


@dataclass(frozen=True)
class World:
    """Two tenants with the same names: agents A and B and the team X in each, a row in every table of A's scope."""

    database: Database
    microdao: str
    twin: str
    rows: dict[str, dict[str, Any]]
    scopes: dict[tuple[str, str, str], int]

    @property
    def own(self) -> int:
        """A's scope."""
        return self.scopes[self.microdao, "agent", A]

    async def as_tenant(self, statement: str, *values: Any, twin: bool = False) -> None:
        async with self.database.tenant(self.twin if twin else self.microdao) as connection:
            await connection.execute(statement, values)

    async def share(self, access: str, kind: str, grantee: str, scope: int | None = None) -> None:
        await self.as_tenant(
            "INSERT INTO memory_grant (id, microdao_id, scope_id, grantee_kind, grantee, access)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *(new_id("grant"), self.microdao, scope or self.own, kind, grantee, access),
        )


@pytest.fixture
async def world(postgres: EmbeddedPostgres, database: Database) -> AsyncIterator[World]:
    microdao, twin = (f"microdao:{new_id('world')}" for _ in range(2))
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for one in (microdao, twin):
            any_rows.make_tenant(connection, one, A, B)
            connection.execute("INSERT INTO team (microdao_id, team_id, name) VALUES (%s, %s, 'X')", (one, TEAM))
        tables = [one["name"] for one in any_rows.protected_tables(connection) if one["has_scope"]]
        with any_rows.every_table_filled(connection, microdao, A) as fixed:
            rows = {
                table: any_rows.any_row(connection, table, fixed)
                for table in tables
                if table not in ("memory_scope", "memory_grant")
            }
            found = connection.execute("SELECT microdao_id, kind, name, scope_id FROM memory_scope").fetchall()
            connection.execute("DELETE FROM memory_grant WHERE microdao_id = %s", (microdao,))
            scopes = {(one, kind, name): scope for one, kind, name, scope in found}
            yield World(database, microdao, twin, rows, scopes)


async def seen(world: World, table: str, microdao: str, agent: str) -> int:
    async with world.database.agent(microdao, agent) as connection:
        return len(await fetch_all(connection, f"SELECT 1 FROM {table} WHERE scope_id = {world.own}"))


async def tried(world: World, agent: str, statement: str, values: Any = (), microdao: str | None = None) -> int | None:
    """How many rows a statement touches; None when it is refused for want of rights."""
    async with world.database.agent(world.microdao if microdao is None else microdao, agent) as connection:
        try:
            return (await connection.execute(statement, values)).rowcount
        except psycopg.errors.InsufficientPrivilege:
            return None
        finally:
            await connection.rollback()


async def changes(world: World, table: str, agent: str, microdao: str | None = None) -> list[int | None]:
    """What comes of changing and of deleting the rows of A's scope."""
    return [
        await tried(world, agent, f"{verb} WHERE scope_id = {world.own}", (), microdao)
        for verb in (f"UPDATE {table} SET scope_id = scope_id", f"DELETE FROM {table}")
    ]


async def cannot_write(world: World, table: str, agent: str, microdao: str | None = None) -> bool:
    """Neither change nor delete nor add, not even what is there already."""
    row = world.rows[table]
    insert = any_rows.insert_statement(table, row)
    added = [
        await tried(world, agent, insert + suffix, row, microdao)
        for suffix in ("", " ON CONFLICT DO NOTHING", " ON CONFLICT DO NOTHING RETURNING *")
    ]
    return added == [None, None, None] and set(await changes(world, table, agent, microdao)) <= {0, None}


async def test_an_agent_holds_no_privileges_but_those_it_needs(world: World):
    async with world.database.system() as connection:
        rows = await fetch_all(
            connection,
            "SELECT c.relname AS table_name, array_agg(p) AS held FROM pg_class c,"
            " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p"
            " WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'public'::regnamespace"
            " AND has_table_privilege(%s, c.oid, p) GROUP BY 1",
            (AGENT_ROLE,),
        )
    held = {row["table_name"]: set(row["held"]) for row in rows}
    assert {table: held.pop(table) for table in GRANTED} == GRANTED
    assert {table: held.pop(table) for table in READ_ONLY} == {table: {"SELECT"} for table in READ_ONLY}
    assert held == {table: {"SELECT", "INSERT", "UPDATE", "DELETE"} for table in world.rows if table not in READ_ONLY}


async def test_nobody_else_sees_or_writes_an_agents_rows(world: World):
    strangers = {
        "another agent": (world.microdao, B),
        "the same name in another tenant": (world.twin, A),
        "an agent that does not exist": (world.microdao, "agent:nobody"),
        "no agent": (world.microdao, ""),
        "no tenant": ("", A),
    }
    for table in world.rows:
        assert await seen(world, table, world.microdao, A) == 1, table
        for who, (microdao, agent) in strangers.items():
            assert await seen(world, table, microdao, agent) == 0, f"{table}: {who}"
            assert await cannot_write(world, table, agent, microdao), f"{table}: {who}"


async def test_readers_read_and_writers_write(world: World):
    await world.share("read", "agent", B)
    for table in world.rows:
        assert await seen(world, table, world.microdao, B) == 1, table
        if table not in COUNTED:
            assert await cannot_write(world, table, B), table
    await world.as_tenant("UPDATE memory_grant SET access = 'write'")
    for table in world.rows.keys() - READ_ONLY:
        assert await changes(world, table, B) == [1, 1], table
    await world.as_tenant("DELETE FROM memory_grant")
    for table in world.rows:
        assert await seen(world, table, world.microdao, B) == 0, table
        assert await cannot_write(world, table, B), table


async def test_a_team_shares_for_as_long_as_one_belongs_to_it(world: World):
    await world.share("read", "team", TEAM)
    assert await seen(world, "memory_item", world.microdao, B) == 0
    await world.as_tenant("INSERT INTO team_member VALUES (%s, %s, %s)", world.twin, TEAM, B, twin=True)
    assert await seen(world, "memory_item", world.microdao, B) == 0, "a member of the other tenant's team of that name"
    await world.as_tenant("INSERT INTO team_member VALUES (%s, %s, %s)", world.microdao, TEAM, B)
    assert await seen(world, "memory_item", world.microdao, B) == 1
    assert await seen(world, "memory_item", world.twin, B) == 0
    await world.as_tenant("DELETE FROM team_member")
    assert await seen(world, "memory_item", world.microdao, B) == 0


async def test_a_team_goes_with_its_memory_and_its_grants(world: World):
    """Words and vectors too: they are not referenced, and row-level security must not hide them from who deletes."""
    team = world.scopes[world.microdao, "team", TEAM]
    moved = "UPDATE {} SET scope_id = %s WHERE scope_id = %s"
    async with world.database.system() as connection:
        for table in ("memory_item", "memory_document", "memory_posting", "memory_embedding", "memory_use"):
            await connection.execute(moved.format(table), (team, world.own))
        await connection.execute(
            "UPDATE memory_posting SET item = i.number FROM memory_item i WHERE i.scope_id = %s "
            "AND memory_posting.scope_id = i.scope_id",
            (team,),
        )
        for table in ("memory_embedding", "memory_use"):
            await connection.execute(
                f"UPDATE {table} t SET item = i.number FROM memory_item i"
                " WHERE i.scope_id = %s AND t.scope_id = i.scope_id",
                (team,),
            )
    await world.share("write", "team", TEAM)
    await world.share("read", "agent", B, scope=team)

    await world.as_tenant("DELETE FROM team WHERE team_id = %s", TEAM)
    async with world.database.system() as connection:
        for table in (*world.rows, "memory_grant", "memory_scope"):
            assert await fetch_all(connection, f"SELECT 1 FROM {table} WHERE scope_id = {team}") == [], table
        assert await fetch_all(connection, "SELECT 1 FROM memory_grant WHERE microdao_id = %s", (world.microdao,)) == []
    # Who comes under the old name inherits nothing.
    await world.as_tenant("INSERT INTO team (microdao_id, team_id, name) VALUES (%s, %s, 'X')", world.microdao, TEAM)
    await world.as_tenant("INSERT INTO team_member VALUES (%s, %s, %s)", world.microdao, TEAM, B)
    assert await seen(world, "memory_channel", world.microdao, B) == 0


async def test_grants_name_what_is_of_one_tenant(world: World):
    """And a reference tells nothing: a scope of another tenant's is refused as one that does not exist."""
    foreign = world.scopes[world.twin, "agent", A]
    for scope, kind, grantee in (
        (foreign, "agent", B),
        (2**31 - 1, "agent", B),
        (None, "agent", "agent:nobody"),
        (None, "team", "team:no"),
    ):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await world.share("read", kind, grantee, scope)


async def test_an_agent_learns_nothing_of_others_grants_and_teams(world: World):
    await world.share("read", "team", TEAM)
    await world.as_tenant("INSERT INTO team_member VALUES (%s, %s, %s)", world.microdao, TEAM, A)
    for table in ("team_member", "memory_grant", "memory_activity"):
        async with world.database.agent(world.microdao, B) as connection:
            assert await fetch_all(connection, f"SELECT * FROM {table}") == [], table
    assert await tried(world, B, "UPDATE memory_activity SET queries = 0") == 0
    activity = "INSERT INTO memory_activity (microdao_id, agent_id) VALUES (%s, %s)"
    assert await tried(world, B, activity, (world.microdao, B)) == 1
    assert await tried(world, B, activity, (world.microdao, A)) is None
    assert await tried(world, B, activity, (world.twin, B)) is None


async def test_references_do_not_tell_whether_something_exists(world: World):
    """Foreign keys look past row-level security, so they name the scope and answer alike for theirs and for nothing."""
    own = {"scope_id": world.scopes[world.microdao, "agent", B], "agent_id": B}
    for column, existing in (("document_id", f"any_{world.microdao}"), ("summary_id", f"any_{world.microdao}")):
        said = []
        for value in (existing, "nothing"):
            row = world.rows["memory_item"] | own | {"id": new_id("mem"), column: value}
            async with world.database.agent(world.microdao, B) as connection:
                with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
                    await connection.execute(any_rows.insert_statement("memory_item", row), row)
                said.append(str(refused.value).replace(value, "?"))
                await connection.rollback()
        assert said[0] == said[1], column


async def test_a_taken_id_is_refused_and_untouched(world: World):
    """Ids are hashes of tenant, scope and content; whoever still hits one of another scope's changes nothing."""
    row = world.rows["memory_item"] | {"id": f"any_{world.microdao}", "agent_id": B}
    row |= {"scope_id": world.scopes[world.microdao, "agent", B]}
    insert = any_rows.insert_statement("memory_item", row)
    assert await tried(world, B, f"{insert} ON CONFLICT (id) DO NOTHING RETURNING id", row) == 0
    assert await tried(world, B, f"{insert} ON CONFLICT (id) DO UPDATE SET text = 'stolen' RETURNING text", row) is None


async def test_nobody_can_stand_in_the_way_of_others_counting(world: World):
    async with world.database.agent(world.microdao, B) as connection:
        await connection.execute(
            "INSERT INTO memory_use (scope_id, item) VALUES (%s, 77)", (world.scopes[world.microdao, "agent", B],)
        )
    count = (
        "INSERT INTO memory_use (scope_id, item) VALUES (%s, 77) ON CONFLICT (item, scope_id) DO UPDATE SET hits = 9"
    )
    assert await tried(world, A, count, (world.own,)) == 1


async def test_agents_leave_jobs_for_the_indexer_of_their_tenant_only(world: World):
    insert = "INSERT INTO outbox (id, microdao_id, queue, body) VALUES (%s, %s, %s, %s::jsonb)"
    body = f'{{"microdao_id": "{world.microdao}"}}'
    foreign = f'{{"microdao_id": "{world.twin}"}}'
    assert await tried(world, A, insert, (new_id("job"), world.microdao, "memory", body)) == 1
    for microdao, queue, content in (
        (world.microdao, "tool", body),
        (world.microdao, "memory", foreign),
        (world.twin, "memory", foreign),
        (world.microdao, "memory", "{}"),
    ):
        assert await tried(world, A, insert, (new_id("job"), microdao, queue, content)) is None
    assert await tried(world, A, "SELECT 1 FROM outbox") is None


async def test_no_function_opens_another_scope(world: World):
    async with world.database.agent(world.microdao, B) as connection:
        row = await fetch_one(
            connection, "SELECT agent_scopes('read') AS r, agent_scopes('write') AS w, agent_scopes('any') AS x"
        )
    readable = {world.scopes[world.microdao, "agent", B], world.scopes[world.microdao, "microdao", world.microdao]}
    assert row is not None
    assert (set(row["r"]), row["w"]) == (readable, [world.scopes[world.microdao, "agent", B]])
    assert set(row["x"]) <= readable
    async with world.database.tenant(world.microdao) as connection:
        assert await fetch_one(connection, "SELECT agent_scopes('read') AS r") == {"r": []}
    for call in (
        "add_memory_space('m', 3, 'retired')",
        "drop_memory_space(1::smallint)",
        "enlarge_memory_scope(1::smallint, 1)",
    ):
        assert await tried(world, A, f"SELECT {call}") is None


@pytest.fixture
async def one_connection(world: World, database_url: str) -> AsyncIterator[World]:
    """The same world, where every transaction gets the same connection."""
    database = Database(database_url, max_size=1)
    yield replace(world, database=database)
    await database.close()


async def seen_in_search(world: World, agent: str) -> tuple[int, int]:
    """How many of A's items an agent sees once its search has begun; and the server's process."""
    async with world.database.agent(world.microdao, agent) as connection:
        await store_scopes.read_scopes(connection, 1, Filters())
        row = await fetch_one(
            connection,
            "SELECT count(*) AS seen, pg_backend_pid() AS pid FROM memory_item WHERE scope_id = %s",
            (world.own,),
        )
    return (row["seen"], row["pid"]) if row else (0, 0)


async def test_a_search_keeps_its_scopes_from_the_next_agent_on_the_connection(one_connection: World):
    a, b, again = [await seen_in_search(one_connection, agent) for agent in (A, B, A)]
    assert [a[0], b[0], again[0]] == [1, 0, 1]
    assert a[1] == b[1] == again[1]


@pytest.mark.parametrize("for_transaction_only", [True, False])
async def test_scopes_that_somebody_kept_end_with_the_transaction(one_connection: World, for_transaction_only: bool):
    world = one_connection
    async with world.database.agent(world.microdao, A) as connection:
        kept = f"{{{world.own}}}"
        await connection.execute("SELECT set_config('daarion.read_scopes', %s, %s)", (kept, for_transaction_only))
    for table in world.rows:
        for microdao, agent in ((world.microdao, B), (world.twin, A), (world.microdao, "agent:nobody"), ("", "")):
            assert await seen(world, table, microdao, agent) == 0, (table, microdao, agent)
    statement = "SELECT current_setting('daarion.read_scopes', true) AS kept, agent_scopes('read') AS scopes"
    rows = await world.database.run(statement, microdao_id=world.microdao)
    assert rows == [{"kept": "", "scopes": []}]


async def test_what_is_shared_or_no_longer_holds_from_the_next_search_on(one_connection: World):
    world = one_connection
    assert (await seen_in_search(world, B))[0] == 0
    await world.share("read", "agent", B)
    assert (await seen_in_search(world, B))[0] == 1
    await world.as_tenant("DELETE FROM memory_grant WHERE microdao_id = %s", world.microdao)
    assert (await seen_in_search(world, B))[0] == 0


async def test_a_searchs_scopes_are_those_that_every_statement_would_find_and_none_to_write(world: World):
    await world.share("read", "agent", B)
    await world.share("write", "team", TEAM)
    async with world.database.agent(world.microdao, B) as connection:
        statement = "SELECT agent_scopes('read') AS readable, agent_scopes('write') AS writable"
        before = await fetch_one(connection, statement)
        await store_scopes.read_scopes(connection, 1, Filters())
        assert await fetch_one(connection, statement) == before
        assert before
        assert world.own in before["readable"]
        assert world.own not in before["writable"]
