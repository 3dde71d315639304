"""Row-level security, proven for every tenant table that the catalogue knows, so that a new one cannot forget it."""

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import SYSTEM_ROLE, TENANT_ROLE, Database, fetch_all
from shared.db.migrate import available_migrations, migrate

_TENANT_TABLES = """
SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'microdao_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""


@pytest.fixture(scope="module")
def tenant_tables(postgres: EmbeddedPostgres) -> list[str]:
    with psycopg.connect(postgres.admin_url) as connection:
        rows = connection.execute(_TENANT_TABLES).fetchall()
    assert len(rows) >= 15, "the catalogue query finds the tenant tables"
    assert [name for name, forced, _ in rows if not forced] == []
    assert {owner for _, _, owner in rows}.isdisjoint({TENANT_ROLE, SYSTEM_ROLE, "daarion_runtime"})
    return [name for name, _, _ in rows]


@pytest.fixture
def one_row_in_each(postgres: EmbeddedPostgres, tenant_tables: list[str]) -> str:
    """A tenant with a row in every tenant table. References are not checked meanwhile: only the tenant counts."""
    microdao_id = "microdao:every-table"
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in tenant_tables:
            known = connection.execute(
                f"SELECT 1 FROM {table} WHERE microdao_id = %s LIMIT 1", (microdao_id,)
            ).fetchone()
            if not known:
                _insert_any_row(connection, table, microdao_id)
    return microdao_id


def _insert_any_row(connection: psycopg.Connection, table: str, microdao_id: str) -> None:
    columns = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attgenerated = '' AND attidentity = ''",
        (table,),
    ).fetchall()
    values = {name: _any_value(connection, table, name, kind) for name, kind in columns}
    values["microdao_id"] = microdao_id
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def _any_value(connection: psycopg.Connection, table: str, column: str, kind: str) -> object:
    allowed = connection.execute(
        "SELECT substring(pg_get_constraintdef(oid) from $$'([^']+)'::text$$) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE %s",
        (table, f"%({column} = %"),
    ).fetchone()
    if allowed and allowed[0]:
        return allowed[0]
    numbers = dict.fromkeys(("integer", "bigint", "smallint"), 1)
    simple = {**numbers, "text": "any", "boolean": True, "jsonb": "{}", "json": "{}", "bytea": b"any"}
    if kind in simple:
        return simple[kind]
    if kind.startswith("halfvec"):
        return str([0.1] * int(kind[8:-1] or 3))
    if kind == "text[]":
        return ["member"]
    if kind in ("date", "timestamp with time zone"):
        return "2026-01-01"
    if kind.startswith("numeric") or kind in ("real", "double precision"):
        return 0.5
    raise AssertionError(f"teach this test a value of type {kind} ({table}.{column})")


async def _count(database: Database, table: str, microdao_id: str | None) -> int:
    context = database.system() if microdao_id is None else database.tenant(microdao_id)
    async with context as connection:
        rows = await fetch_all(connection, f"SELECT microdao_id FROM {table}")
    return len(rows)


async def test_no_tenant_and_the_wrong_tenant_see_nothing(
    database: Database, tenant_tables: list[str], one_row_in_each: str
) -> None:
    for table in tenant_tables:
        assert await _count(database, table, one_row_in_each) == 1, table
        assert await _count(database, table, "") == 0, f"{table} without a tenant"
        assert await _count(database, table, "microdao:another") == 0, f"{table} with another tenant"


async def test_a_tenant_cannot_write_into_another(
    database: Database, tenant_tables: list[str], one_row_in_each: str
) -> None:
    for table in tenant_tables:
        async with database.tenant("microdao:another") as connection:
            changed = await connection.execute(f"DELETE FROM {table} WHERE microdao_id = %s", (one_row_in_each,))
            assert changed.rowcount == 0, table
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"INSERT INTO {table} (microdao_id) VALUES (%s)", (one_row_in_each,))
            await connection.rollback()


async def test_the_login_sees_nothing_outside_a_role(database_url: str, tenant_tables: list[str]) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for table in tenant_tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(f"SELECT 1 FROM {table}")


def test_migrations_apply_once(postgres: EmbeddedPostgres) -> None:
    assert migrate(postgres.admin_url, runtime_login="daarion_runtime") == []
    names = [migration.name for migration in available_migrations()]
    assert names == sorted(names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
