"""Row-level security, proven for every table of tenants' rows that the catalogue knows, so that a new one cannot forget
it. What agents may see of their own tenant's memory: test_memory_scopes.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import AGENT_ROLE, SYSTEM_ROLE, TENANT_ROLE, Database, fetch_all, fetch_one
from shared.db.migrate import available_migrations, migrate
from shared.ids import new_id
from tests import any_rows

ROLES = (TENANT_ROLE, SYSTEM_ROLE, AGENT_ROLE, "daarion_runtime")


@dataclass(frozen=True)
class Filled:
    """A tenant with a row of its own in every table, and what such a row looks like."""

    microdao_id: str
    other: str
    tables: dict[str, dict[str, Any]]
    mine: dict[str, str]
    """By table, the condition that holds for this tenant's rows."""


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedPostgres) -> Iterator[Filled]:
    microdao_id, other = (f"microdao:{new_id('every')}" for _ in range(2))
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        any_rows.make_tenant(connection, microdao_id, "agent:any")
        any_rows.make_tenant(connection, other, "agent:any")
        tables = any_rows.protected_tables(connection)
        with any_rows.every_table_filled(connection, microdao_id, "agent:any") as fixed:
            rows = {one["name"]: any_rows.any_row(connection, one["name"], fixed) for one in tables}
            mine = {
                one["name"]: f"microdao_id = '{microdao_id}'"
                if one["has_tenant"]
                else f"scope_id = {fixed['scope_id']}"
                for one in tables
            }
            yield Filled(microdao_id, other, rows, mine)


def test_every_table_is_forced_and_owned_by_nobody_who_runs(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.admin_url) as connection:
        tables = any_rows.protected_tables(connection)
    assert len([one for one in tables if one["has_tenant"]]) >= 20, "the catalogue query finds the tenant tables"
    assert len([one for one in tables if one["has_scope"]]) >= 8, "and the tables of memory"
    assert [one["name"] for one in tables if not one["is_forced"]] == []
    assert {one["owner"] for one in tables}.isdisjoint(ROLES)


async def _count(database: Database, table: str, condition: str, microdao_id: str | None) -> int:
    context = database.system() if microdao_id is None else database.tenant(microdao_id)
    async with context as connection:
        row = await fetch_one(connection, f"SELECT count(*) AS n FROM {table} WHERE {condition}")
    return int(row["n"]) if row else 0


async def test_no_tenant_and_the_wrong_tenant_see_nothing(database: Database, filled: Filled) -> None:
    for table, mine in filled.mine.items():
        assert await _count(database, table, mine, None) >= 1, table
        assert await _count(database, table, mine, filled.microdao_id) >= 1, table
        assert await _count(database, table, f"NOT ({mine})", filled.microdao_id) == 0, f"{table}: others' rows"
        assert await _count(database, table, "true", "") == 0, f"{table} without a tenant"
        assert await _count(database, table, mine, filled.other) == 0, f"{table} with another tenant"


async def test_a_tenant_cannot_write_into_another(database: Database, filled: Filled) -> None:
    for table, row in filled.tables.items():
        column = next(name for name in ("microdao_id", "scope_id") if name in row)
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
            async with database.tenant(filled.other) as connection:
                changed = await connection.execute(f"{statement} WHERE {filled.mine[table]}")
                assert changed.rowcount == 0, table
        if table == "memory_scope":  # its scope_id is made by the server
            continue
        for suffix in ("", " ON CONFLICT DO NOTHING RETURNING *"):
            async with database.tenant(filled.other) as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(any_rows.insert_statement(table, row) + suffix, row)
                await connection.rollback()


async def test_the_login_sees_nothing_outside_a_role(database_url: str, filled: Filled) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for table in filled.tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"SELECT 1 FROM {table}")


async def test_partitions_are_reached_through_their_parent_only(database: Database, filled: Filled) -> None:
    """Row-level security is the parent's: whoever could name a partition would see every tenant's rows."""
    async with database.system() as connection:
        space = filled.tables["memory_embedding"]["space_id"]
        await connection.execute("SELECT enlarge_memory_scope(%s::smallint, %s)", (space, _scope(filled)))
        rows = await fetch_all(
            connection,
            "SELECT c.relname AS name, r AS role FROM pg_class c, unnest(%s::text[]) AS r"
            " WHERE c.relispartition AND c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND has_table_privilege(r, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')",
            (list(ROLES),),
        )
        partitions = await fetch_one(connection, "SELECT count(*) AS n FROM pg_class WHERE relispartition")
    assert rows == []
    assert partitions is not None
    assert partitions["n"] >= 3
    for partition in (f"memory_embedding_{space}_small", f"memory_embedding_{space}_{_scope(filled)}"):
        for context in (database.system(), database.tenant(filled.microdao_id)):
            async with context as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(f"SELECT 1 FROM {partition}")
                await connection.rollback()


def _scope(filled: Filled) -> int:
    return int(filled.tables["memory_embedding"]["scope_id"])


def test_functions_that_act_for_the_owner_are_few_and_safe(postgres: EmbeddedPostgres) -> None:
    """Only sweepers may call them, and no table of the caller's own (pg_temp) can stand in for one of ours."""
    with psycopg.connect(postgres.admin_url) as connection:
        rows = connection.execute(
            "SELECT p.proname, p.proconfig, array_agg(r) FROM pg_proc p, unnest(%s::text[]) AS r"
            " WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
            " AND has_function_privilege(r, p.oid, 'EXECUTE') GROUP BY p.oid",
            ([*ROLES, "public"],),
        ).fetchall()
    assert {name for name, _, _ in rows} == {
        "add_memory_space",
        "drop_memory_space",
        "enlarge_memory_scope",
        "crowded_memory_scopes",
    }
    for name, settings, callers in rows:
        assert "search_path=public, pg_temp" in settings, name
        assert callers == [SYSTEM_ROLE], name


async def test_nobody_who_runs_can_protect_or_unprotect_a_table(database: Database) -> None:
    contexts = (database.system, lambda: database.tenant("microdao:any"), lambda: database.agent("microdao:any", "a"))
    for call in (
        "CALL protect_tenant_table('memory_item')",
        "CALL protect_scope_table('memory_item')",
        "CALL share_with_agents('memory_item', 'SELECT')",
        "ALTER TABLE memory_item DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (id integer)",
        "SET LOCAL row_security = off; SELECT 1 FROM memory_item",
    ):
        for context in contexts:
            async with context() as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(call)
                await connection.rollback()


def test_migrations_apply_once(postgres: EmbeddedPostgres) -> None:
    assert migrate(postgres.admin_url, runtime_login="daarion_runtime") == []
    names = [migration.name for migration in available_migrations()]
    assert names == sorted(names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
