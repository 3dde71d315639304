"""SQL of imports: sources, and which of their tools are ours."""

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one

_IMPORT = (
    "SELECT tool_import.*, (SELECT count(*) FROM tool_import_item WHERE import_id = tool_import.id)::int AS tools,"
    " (SELECT count(*) FROM tool_import_item JOIN tool ON tool.id = tool_id"
    " WHERE import_id = tool_import.id AND tool.pending_version IS NOT NULL)::int AS pending,"
    " (SELECT count(*) FROM tool_import_item WHERE import_id = tool_import.id AND vanished_at IS NOT NULL)::int"
    " AS vanished FROM tool_import"
)


async def hold_import(connection: Connection, row: dict[str, Any]) -> str:
    """The id of the import of this source, made if it is new, held for this transaction."""
    found = await fetch_one(
        connection,
        "INSERT INTO tool_import (id, microdao_id, kind, key, title, source, created_by, next_check_at)"
        " VALUES (%(id)s, %(microdao_id)s, %(kind)s, %(key)s, %(title)s, %(source)s, %(created_by)s,"
        " now() + make_interval(secs => %(next_check_s)s)) ON CONFLICT (microdao_id, key) DO UPDATE SET"
        " title = EXCLUDED.title, source = EXCLUDED.source, checked_at = now(), check_error = NULL,"
        " next_check_at = EXCLUDED.next_check_at RETURNING id",
        {**row, "source": Jsonb(row["source"])},
    )
    return str(found["id"]) if found else ""


async def find_import(connection: Connection, import_id: str) -> Row | None:
    """One import."""
    return await fetch_one(connection, f"{_IMPORT} WHERE id = %s", (import_id,))


async def list_imports(connection: Connection, after: str, limit: int) -> list[Row]:
    """Imports by id, from the one after ``after``."""
    return await fetch_all(connection, f"{_IMPORT} WHERE id > %s ORDER BY id LIMIT %s", (after, limit))


async def list_items(connection: Connection, import_id: str) -> list[Row]:
    """What is ours of an import: ``tool_id`` by ``source_name``, held for this transaction with its tools."""
    return await fetch_all(
        connection,
        "SELECT tool_import_item.* FROM tool_import_item JOIN tool ON tool.id = tool_id WHERE import_id = %s"
        " ORDER BY tool_id FOR UPDATE OF tool",
        (import_id,),
    )


async def add_items(connection: Connection, microdao_id: str, import_id: str, items: Sequence[dict[str, str]]) -> None:
    """Note that these tools (``tool_id``, ``source_name``, ``source_hash``) come from the import."""
    await connection.execute(
        "INSERT INTO tool_import_item (microdao_id, import_id, tool_id, source_name, source_hash)"
        " SELECT %s, %s, tool_id, source_name, source_hash FROM jsonb_to_recordset(%s)"
        " AS item (tool_id text, source_name text, source_hash text)",
        (microdao_id, import_id, Jsonb(list(items))),
    )


async def note_seen(connection: Connection, tool_id: str, source_hash: str) -> None:
    """The source says this of the tool now."""
    await connection.execute(
        "UPDATE tool_import_item SET source_hash = %s, vanished_at = NULL WHERE tool_id = %s", (source_hash, tool_id)
    )


async def note_vanished(connection: Connection, tool_id: str) -> None:
    """The source does not have the tool any more."""
    await connection.execute(
        "UPDATE tool_import_item SET vanished_at = coalesce(vanished_at, now()) WHERE tool_id = %s", (tool_id,)
    )


async def existing(connection: Connection, tool_ids: Sequence[str]) -> set[str]:
    """Those of the ids that are tools."""
    rows = await fetch_all(connection, "SELECT id FROM tool WHERE id = ANY(%s)", (list(tool_ids),))
    return {row["id"] for row in rows}


async def note_check_failed(connection: Connection, import_id: str, error: str, next_check_s: float) -> None:
    """The source could not be looked at."""
    await connection.execute(
        "UPDATE tool_import SET checked_at = now(), check_error = %s,"
        " next_check_at = now() + make_interval(secs => %s) WHERE id = %s",
        (error, next_check_s, import_id),
    )


async def take_due(connection: Connection, limit: int, next_check_s: float) -> list[Row]:
    """Imports of every microDAO that are to be looked at (system role); nobody else takes them until the next time."""
    return await fetch_all(
        connection,
        "UPDATE tool_import SET next_check_at = now() + make_interval(secs => %s) WHERE id"
        " = ANY(ARRAY(SELECT id FROM tool_import WHERE next_check_at < now() ORDER BY next_check_at LIMIT %s"
        " FOR UPDATE SKIP LOCKED)) RETURNING id, microdao_id",
        (next_check_s, limit),
    )


async def delete_import(connection: Connection, import_id: str) -> bool:
    """Forget a source; its tools stay. False when there is none."""
    row = await fetch_one(connection, "DELETE FROM tool_import WHERE id = %s RETURNING id", (import_id,))
    return row is not None
