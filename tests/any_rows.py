"""A row for any table, made from what the catalogue says, so that a proof about every table needs no list of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from shared.db.database import SYSTEM_ROLE

# Every table whose rows are a tenant's (microdao_id) or lie in a scope of its memory (scope_id). Rows of partitions are
# reached through their parent only.
_TABLES = """
SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS is_forced, pg_get_userbyid(c.relowner) AS owner,
    bool_or(a.attname = 'microdao_id') AS has_tenant, bool_or(a.attname = 'scope_id') AS has_scope
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
GROUP BY c.oid HAVING bool_or(a.attname IN ('microdao_id', 'scope_id')) ORDER BY 1
"""

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0
    AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attgenerated = '' AND attidentity = ''
"""

_ALLOWED = """
SELECT substring(pg_get_constraintdef(oid) from $$'([^']+)'::text$$) FROM pg_constraint
WHERE conrelid = %s::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE %s
"""

_EXAMPLES: dict[str, Any] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), 1),
    **dict.fromkeys(("real", "double precision", "numeric"), 0.5),
    **dict.fromkeys(("date", "timestamp with time zone"), "2026-01-01"),
    **dict.fromkeys(("json", "jsonb"), "{}"),
    "text": "any",
    "text[]": ["member"],
    "boolean": True,
    "bytea": b"any",
    "halfvec": "[0.1,0.2,0.3]",
}


def protected_tables(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Each table that must be protected: its name, whether it is, its owner, and by what its rows are somebody's."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(_TABLES).fetchall()


def any_row(connection: psycopg.Connection, table: str, fixed: dict[str, Any]) -> dict[str, Any]:
    """A value for each column that needs one; ``fixed`` are those that matter."""
    columns = connection.execute(_COLUMNS, (table,)).fetchall()
    row = {name: _any_value(connection, table, name, kind) for name, kind in columns}
    return row | {name: value for name, value in fixed.items() if name in row}


def insert_statement(table: str, row: dict[str, Any]) -> str:
    """The statement that inserts a row, with named parameters."""
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f'%({name})s' for name in row)})"


def _any_value(connection: psycopg.Connection, table: str, column: str, kind: str) -> object:
    allowed = connection.execute(_ALLOWED, (table, f"%({column} = %")).fetchone()
    if allowed and allowed[0]:
        return allowed[0]
    if kind.partition("(")[0] in _EXAMPLES:
        return _EXAMPLES[kind.partition("(")[0]]
    raise AssertionError(f"teach this test a value of type {kind} ({table}.{column})")


@contextmanager
def every_table_filled(
    connection: psycopg.Connection, microdao_id: str, agent_id: str, user_id: str | None = None
) -> Iterator[dict[str, Any]]:
    """One row of this tenant in every protected table, until the end of the block; the values that matter.

    The scopes' rows lie in the agent's own scope, or in that of its user. References are not checked: only whose a row
    is counts. ``connection`` is a superuser's.
    """
    found = connection.execute(
        "SELECT scope_id, space_id FROM memory_scope, add_memory_space('any', 3, 'retired') AS s (space_id)"
        " WHERE microdao_id = %s AND kind = %s AND name = %s AND agent_id IS NOT DISTINCT FROM %s",
        (microdao_id, "user" if user_id else "agent", user_id or agent_id, agent_id if user_id else None),
    ).fetchone()
    assert found
    fixed = {"microdao_id": microdao_id, "agent_id": agent_id, "scope_id": found[0], "space_id": found[1]}
    tables = protected_tables(connection)
    with _without_references(connection):
        for table in tables:
            if table["name"] not in ("microdao", "agent", "memory_scope"):
                row = any_row(connection, table["name"], fixed | {"grantee": agent_id})
                row |= {"id": f"any_{microdao_id}"} if isinstance(row.get("id"), str) else {}
                connection.execute(insert_statement(table["name"], row), row)
    yield fixed
    with _without_references(connection):
        for table in tables:
            column = "microdao_id" if table["has_tenant"] else "scope_id"
            connection.execute(f"DELETE FROM {table['name']} WHERE {column} = %s", (fixed[column],))
        connection.execute("SELECT drop_memory_space(%s::smallint)", (fixed["space_id"],))


@contextmanager
def _without_references(connection: psycopg.Connection) -> Iterator[None]:
    connection.execute("SET session_replication_role = replica")
    yield
    connection.execute("SET session_replication_role = origin")


def make_tenant(connection: psycopg.Connection, microdao_id: str, *agent_ids: str) -> None:
    """A microDAO with these agents."""
    with connection.transaction():
        connection.execute(f"SET LOCAL ROLE {SYSTEM_ROLE}")
        connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Test')", (microdao_id,))
        for agent_id in agent_ids:
            connection.execute(
                "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, %s, 'Test', 'sofia')",
                (microdao_id, agent_id),
            )
