"""The SQL of snapshots: keeping them, reading a memory for one, and making a memory what one says."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from shared.db.database import Connection, Row, as_tenant, fetch_all, fetch_one
from shared.memory.store import OF_AGENT, pass_gates

_LOCK: Final = 4_217_014
"""Any constant: two changes of one agent's snapshots, or two restores of its memory, must not meet."""
_FETCHED: Final = 200  # rows a round trip

_COLUMNS: Final = "p.id, s.name AS agent_id, p.name, p.items, p.documents, p.users, p.bytes, p.created_at"
_SNAPSHOT: Final = " FROM memory_snapshot p JOIN memory_scope s USING (scope_id)"

# One statement sees one moment, whatever is written meanwhile. The lines are those of snapshot_lines.
_ALIVE: Final = "(i.expires_at IS NULL OR i.expires_at > now())"
_LINES: Final = f"""
WITH s AS MATERIALIZED (
    SELECT scope_id, CASE kind WHEN 'user' THEN name END AS user_id,
        CASE kind WHEN 'user' THEN jsonb_build_object('user_id', name) ELSE '{{}}' END AS whose
    FROM memory_scope JOIN {OF_AGENT} o USING (scope_id))
SELECT 'document' AS kind, 0::bigint AS number, s.user_id, (jsonb_build_object('kind', 'document', 'id', d.id,
    'title', d.title, 'source', d.source, 'media_type', d.media_type, 'content_hash', encode(d.content_hash, 'hex'),
    'characters', d.characters, 'chunks', d.chunks, 'metadata', d.metadata, 'created_at', d.created_at)
    || s.whose)::text AS line
FROM memory_document d JOIN s USING (scope_id)
WHERE EXISTS (SELECT 1 FROM memory_item i WHERE i.document_id = d.id AND {_ALIVE})
UNION ALL
SELECT 'item', i.number, s.user_id, (jsonb_build_object('kind', 'item', 'id', i.id, 'tier', i.tier,
    'content', i.content, 'source', i.source, 'channel_id', i.channel_id, 'session_id', i.session_id,
    'document_id', i.document_id, 'position', i.position, 'importance', i.importance, 'occurred_at', i.occurred_at,
    'expires_at', i.expires_at, 'created_at', i.created_at, 'summary_id', (
        SELECT y.id FROM memory_item y WHERE y.id = i.summary_id AND y.scope_id = i.scope_id
            AND (y.expires_at IS NULL OR y.expires_at > now()))) || s.whose)::text
FROM memory_item i JOIN s USING (scope_id) WHERE {_ALIVE}
ORDER BY kind, number
"""

_INSERT: Final = """
INSERT INTO memory_snapshot (id, microdao_id, scope_id, name, items, documents, users, bytes, file)
VALUES (%(id)s, %(microdao_id)s, %(scope_id)s, %(name)s, %(items)s, %(documents)s, %(users)s, %(bytes)s, %(file)s)
"""

_EXISTING: Final = """
SELECT id, tier, content_hash, source, channel_id, session_id, document_id, position, importance, occurred_at,
    expires_at, summary_id
FROM memory_item WHERE scope_id = %s ORDER BY number
"""

# Locked in the order in which the indexer locks, or the two could wait for each other.
_LOCK_ITEMS: Final = """
SELECT id FROM memory_item WHERE scope_id = %(scope_id)s
    AND (id = ANY(%(ids)s) OR document_id = ANY(%(documents)s) OR expires_at <= now()) ORDER BY id FOR UPDATE
"""

# Scope by scope, a restore would wait for who holds one of a later scope and waits for one of an earlier.
_HOLD: Final = """
SELECT 1 FROM {table} WHERE scope_id = %(scope_id)s OR scope_id IN (
    SELECT scope_id FROM memory_scope
    WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s AND name = ANY(%(users)s)) ORDER BY id FOR UPDATE
"""

_CHANGE: Final = """
UPDATE memory_item i SET tier = c.tier, importance = c.importance, expires_at = c.expires_at
FROM unnest(%s::text[], %s::text[], %s::real[], %s::timestamptz[]) AS c (id, tier, importance, expires_at)
WHERE i.id = c.id
"""

_DATE_BACK: Final = """
UPDATE {table} t SET created_at = c.created_at FROM unnest(%s::text[], %s::timestamptz[]) AS c (id, created_at)
WHERE t.id = c.id
"""

# What a summary stands for is not found itself, so nothing of it waits for the indexer.
_LINK: Final = """
UPDATE memory_item i SET summary_id = l.summary_id, state = 'ready', failure = NULL, words = NULL, lexicon = NULL,
    freed_at = NULL
FROM unnest(%s::text[], %s::text[]) AS l (id, summary_id) WHERE i.id = l.id
"""


async def lock_scope(connection: Connection, scope_id: int) -> None:
    """Keep others' snapshots and restores from a scope until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_LOCK, scope_id))


async def hold_scopes(connection: Connection, scope_id: int, agent_id: str, user_ids: Sequence[str]) -> None:
    """Hold what is in a scope and in those of an agent's users, in the order in which everybody does, and let none of
    these users be forgotten, until the transaction ends."""
    await pass_gates(connection, agent_id, user_ids)
    async with as_tenant(connection):
        for table in ("memory_document", "memory_item"):
            named = {"scope_id": scope_id, "agent_id": agent_id, "users": list(user_ids)}
            await connection.execute(_HOLD.format(table=table), named)


async def count_snapshots(connection: Connection, scope_id: int) -> int:
    """How many a scope has."""
    row = await fetch_one(connection, "SELECT count(*) AS n FROM memory_snapshot WHERE scope_id = %s", (scope_id,))
    return int(row["n"]) if row else 0


async def insert_snapshot(connection: Connection, snapshot: Mapping[str, Any]) -> None:
    """Keep a snapshot."""
    await connection.execute(_INSERT, snapshot)


async def list_snapshots(connection: Connection, agent_id: str, after: str, limit: int) -> list[Row]:
    """An agent's snapshots by id (oldest first), after a cursor."""
    return await fetch_all(
        connection,
        f"SELECT {_COLUMNS}{_SNAPSHOT} WHERE s.microdao_id = current_microdao() AND s.kind = 'agent' AND s.name = %s"
        " AND p.id > %s ORDER BY p.id LIMIT %s",
        (agent_id, after, limit),
    )


async def read_snapshot(connection: Connection, snapshot_id: str) -> Row | None:
    """What is known of a snapshot, without its file."""
    return await fetch_one(connection, f"SELECT {_COLUMNS}{_SNAPSHOT} WHERE p.id = %s", (snapshot_id,))


async def read_snapshot_file(connection: Connection, snapshot_id: str) -> Row | None:
    """Its ``agent_id``, ``scope_id`` and compressed ``file``."""
    query = f"SELECT s.name AS agent_id, p.scope_id, p.file{_SNAPSHOT} WHERE p.id = %s"
    return await fetch_one(connection, query, (snapshot_id,))


async def delete_snapshot(connection: Connection, snapshot_id: str) -> bool:
    """Whether there was one that may be deleted."""
    query = "DELETE FROM memory_snapshot WHERE id = %s RETURNING id"
    return await fetch_one(connection, query, (snapshot_id,)) is not None


async def read_lines(connection: Connection, agent_id: str) -> AsyncGenerator[Row, None]:
    """The ``line`` and ``kind`` of each document, then of each item of an agent's own memory and its users' (with the
    ``user_id``), all as they are at one moment (tenant role)."""
    async with connection.cursor(name="snapshot") as cursor:
        cursor.itersize = _FETCHED
        await cursor.execute(_LINES, {"agent_id": agent_id})
        async for row in cursor:
            yield row


async def read_documents(connection: Connection, scope_id: int) -> list[Row]:
    """A scope's documents as far as a restore compares them, held until the transaction ends: before items are."""
    query = "SELECT id, title, source, characters, chunks, metadata FROM memory_document WHERE scope_id = %s"
    return await fetch_all(connection, f"{query} ORDER BY id FOR UPDATE", (scope_id,))


async def read_items(connection: Connection, scope_id: int) -> list[Row]:
    """A scope's items as far as a restore compares them."""
    return await fetch_all(connection, _EXISTING, (scope_id,))


async def remove(connection: Connection, scope_id: int, item_ids: Sequence[str], document_ids: Sequence[str]) -> None:
    """Forget items, documents with their items, and what has expired."""
    named = {"scope_id": scope_id, "ids": list(item_ids), "documents": list(document_ids)}
    # Which summaries stay is the caller's plan; else each would go with what it was made of.
    await connection.execute("SELECT set_config('daarion.keeps_summaries', 'on', true)")
    locked = [row["id"] for row in await fetch_all(connection, _LOCK_ITEMS, named)]
    await connection.execute("DELETE FROM memory_item WHERE id = ANY(%s)", (locked,))
    await connection.execute("DELETE FROM memory_document WHERE id = ANY(%s)", (list(document_ids),))


async def change_items(connection: Connection, items: Sequence[Mapping[str, Any]]) -> None:
    """Give items the ``tier``, ``importance`` and ``expires_at`` of these."""
    columns = ("id", "tier", "importance", "expires_at")
    await connection.execute(_CHANGE, [[item[column] for item in items] for column in columns])


async def date_back(connection: Connection, items: Sequence[Mapping[str, Any]]) -> None:
    """Give items their first ``created_at`` again."""
    await connection.execute(_DATE_BACK.format(table="memory_item"), _dates(items))


async def date_documents_back(connection: Connection, documents: Sequence[Mapping[str, Any]]) -> None:
    """Give documents their first ``created_at`` again."""
    await connection.execute(_DATE_BACK.format(table="memory_document"), _dates(documents))


async def link_items(connection: Connection, summaries: Mapping[str, str]) -> None:
    """Let each item be stood for by its summary."""
    await connection.execute(_LINK, (list(summaries), list(summaries.values())))


def _dates(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[row["id"] for row in rows], [row["created_at"] for row in rows]]
