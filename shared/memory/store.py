"""The SQL of memory items. Every function runs in the caller's transaction, which says whose items it may see."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory.model import Filters, Listing, ScopeRef

ITEM_COLUMNS: Final = (
    "i.id, i.number, i.tier, s.kind AS scope_kind, s.name AS scope_name, i.agent_id, i.content, i.text, i.occurred_at,"
    " i.session_id, i.channel_id, i.document_id, i.position, i.source, i.author, i.importance, i.state, i.failure,"
    " i.expires_at, i.created_at, i.summary_id"
)

# What filters ask of an item `i`, beside its scope.
MATCHING: Final = """(i.expires_at IS NULL OR i.expires_at > now())
    AND (%(tiers)s::text[] = '{}' OR i.tier = ANY(%(tiers)s))
    AND (%(channel_id)s::text IS NULL OR i.channel_id = %(channel_id)s)
    AND (%(session_id)s::text IS NULL OR i.session_id = %(session_id)s)
    AND (%(document_id)s::text IS NULL OR i.document_id = %(document_id)s)
    AND (NOT %(documents_only)s OR i.document_id IS NOT NULL)
    AND (%(source)s::text IS NULL OR i.source = %(source)s)
    AND (%(since)s::timestamptz IS NULL OR i.occurred_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR i.occurred_at < %(until)s)
    AND (%(metadata)s::jsonb = '{}' OR i.content -> 'context' @> %(metadata)s::jsonb)"""

# A summary quotes what it stands for, so it expires no later. Under a taken id nothing is kept of what says something
# else, unless it `may_differ`: then the id alone tells what it is.
_INSERT: Final = """
WITH item AS (
    INSERT INTO memory_item (id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, source, author,
        channel_id, session_id, document_id, position, importance, occurred_at, expires_at, words, lexicon)
    VALUES (%(id)s, %(microdao_id)s, %(scope_id)s, %(agent_id)s, %(tier)s, %(content)s::jsonb, %(text)s,
        %(content_hash)s, %(source)s, %(author)s, %(channel_id)s, %(session_id)s, %(document_id)s, %(position)s,
        %(importance)s, %(occurred_at)s, %(expires_at)s, %(words)s, %(lexicon)s)
    ON CONFLICT (id) DO UPDATE SET failure = NULL, queued_at = now(),
        expires_at = CASE WHEN %(renews)s THEN EXCLUDED.expires_at ELSE memory_item.expires_at END,
        importance = CASE WHEN %(renews)s THEN EXCLUDED.importance ELSE memory_item.importance END,
        state = CASE memory_item.state WHEN 'failed' THEN 'pending' ELSE memory_item.state END
    WHERE %(may_differ)s OR memory_item.content_hash = EXCLUDED.content_hash
    RETURNING number, scope_id, state, summary_id, xmax = 0 AS is_new),
summary AS (
    UPDATE memory_item s SET expires_at = least(s.expires_at, %(expires_at)s::timestamptz) FROM item i
    WHERE s.id = i.summary_id AND %(expires_at)s::timestamptz IS NOT NULL),
posting AS (
    INSERT INTO memory_posting (scope_id, term, item, frequency, words)
    SELECT i.scope_id, t.term, i.number, t.frequency, %(words)s
    FROM item i, unnest(%(terms)s::text[], %(frequencies)s::smallint[]) AS t (term, frequency) WHERE i.is_new),
job AS (
    INSERT INTO outbox (id, microdao_id, queue, body)
    SELECT %(job_id)s, %(microdao_id)s, 'memory', %(job_body)s::jsonb FROM item
    WHERE state = 'pending' AND %(job_id)s::text IS NOT NULL)
SELECT state FROM item
"""

# The scope that `kind` and `name` mean to an agent: names of users are each agent's own.
_NAMED: Final = "kind = %(kind)s AND name = %(name)s AND (kind <> 'user' OR agent_id = %(agent_id)s)"

_SCOPE: Final = f"""
SELECT EXISTS (SELECT 1 FROM agent WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s) AS agent,
    (SELECT scope_id FROM memory_scope WHERE microdao_id = current_microdao() AND {_NAMED}),
    EXISTS (SELECT 1 FROM memory_scope WHERE {_NAMED}
        AND scope_id = ANY ((SELECT agent_scopes('read'))::integer[])) AS readable,
    EXISTS (SELECT 1 FROM memory_scope WHERE {_NAMED}
        AND scope_id = ANY ((SELECT agent_scopes('write'))::integer[])) AS writable
"""

# Whoever stores for an end user passes a gate (shared) before anything else is held, whoever forgets that user closes
# it: else the one could hold a memory and need the scope, the other hold the scope and need that memory. Users have 256
# gates together, for a restore passes those of all its users, and the server's table of locks is small.
_GATES: Final = """
SELECT pg_advisory_xact_lock{shared}(4217015, gate) FROM (
    SELECT DISTINCT hashtext(current_microdao() || chr(31) || %(agent_id)s || chr(31) || name) & 255 AS gate
    FROM unnest(%(users)s::text[]) AS name ORDER BY gate) g
"""

# Only if it is missing: each try of an insert would take one of the numbers that scopes have. Two that make it at once
# make it once.
_MAKE_USER_SCOPE: Final = """
INSERT INTO memory_scope (microdao_id, kind, name, agent_id)
SELECT a.microdao_id, 'user', current_end_user(), a.agent_id FROM agent a
WHERE a.microdao_id = current_microdao() AND a.agent_id = current_agent() AND current_end_user() IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM memory_scope WHERE microdao_id = current_microdao() AND kind = 'user'
    AND name = current_end_user() AND agent_id = current_agent())
ON CONFLICT DO NOTHING
"""

OF_AGENT: Final = """(
    SELECT scope_id FROM memory_scope
    WHERE microdao_id = current_microdao() AND kind = 'agent' AND name = %(agent_id)s
    UNION ALL
    SELECT scope_id FROM memory_scope WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s)"""
"""An agent's own scope and those of its users, for statements of the tenant role."""

MAX_ANSWER_BYTES: Final = 8_000_000
"""Of the texts in one answer, the first of which may be larger: a hundred of the longest would fill the process."""

_LIST: Final = f"""
WITH page AS (
    SELECT {ITEM_COLUMNS}, octet_length(i.text) AS bytes FROM memory_item i JOIN memory_scope s USING (scope_id)
    WHERE {MATCHING} AND (%(written_by)s::text IS NULL OR i.agent_id = %(written_by)s)
      AND (%(scope_kinds)s::text[] = '{{}}' OR s.kind = ANY(%(scope_kinds)s))
      AND (%(before)s::bigint IS NULL OR (i.occurred_at, i.number) < (%(before_moment)s, %(before)s))
    ORDER BY i.occurred_at DESC, i.number DESC LIMIT %(limit)s),
measured AS (
    SELECT *, sum(bytes) OVER (ORDER BY occurred_at DESC, number DESC) - bytes AS bytes_before,
        count(*) OVER () AS matching FROM page)
SELECT * FROM measured WHERE bytes_before < {MAX_ANSWER_BYTES} ORDER BY occurred_at DESC, number DESC
"""

# With their summaries and all that these stand for, which go or are found themselves again with a change or a deletion:
# in one order, or two of them could wait for each other.
_HOLD: Final = """
SELECT id FROM memory_item WHERE id = ANY (ARRAY(
    SELECT id FROM memory_item WHERE id = ANY(%(ids)s) OR summary_id = ANY(%(ids)s)
    UNION SELECT summary_id FROM memory_item WHERE id = ANY(%(ids)s)
    UNION SELECT o.id FROM memory_item i JOIN memory_item o ON o.summary_id = i.summary_id WHERE i.id = ANY(%(ids)s)))
ORDER BY id FOR UPDATE
"""

# Whoever changes several rows holds documents first, then items, both in the order of their ids, as the indexer does:
# else two could wait for each other. A document that loses or gets items is held, so that the last to go is known.
_LOCK_ITEMS: Final = "SELECT id FROM memory_item WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"

_LOCK_DOCUMENTS: Final = """
SELECT id FROM memory_document WHERE id IN (
    SELECT document_id FROM memory_item WHERE id = ANY(%s) AND document_id IS NOT NULL) ORDER BY id FOR UPDATE
"""

_FROM_MATCHING: Final = f"""
FROM memory_item i JOIN memory_scope s USING (scope_id)
WHERE s.microdao_id = current_microdao() AND s.kind = %(kind)s AND s.name = %(name)s
  AND (s.kind <> 'user' OR s.agent_id = current_agent()) AND {MATCHING}
"""

_LOCK_MATCHING_DOCUMENTS: Final = f"""
SELECT id FROM memory_document WHERE id IN (SELECT i.document_id {_FROM_MATCHING}) ORDER BY id FOR UPDATE
"""

_DELETE_MATCHING: Final = f"""
WITH matching AS MATERIALIZED (SELECT i.id {_FROM_MATCHING} ORDER BY i.id FOR UPDATE OF i)
DELETE FROM memory_item WHERE id IN (SELECT id FROM matching) RETURNING document_id
"""

_STATS: Final = f"""
SELECT count(i.id) FILTER (WHERE i.tier = 'short_term') AS short_term,
    count(i.id) FILTER (WHERE i.tier = 'mid_term') AS mid_term,
    count(i.id) FILTER (WHERE i.tier = 'long_term') AS long_term,
    count(i.id) FILTER (WHERE i.state = 'pending') AS pending,
    count(i.id) FILTER (WHERE i.state = 'failed') AS failed,
    coalesce(sum(octet_length(i.content::text)), 0)::bigint AS bytes,
    coalesce((SELECT sum(queries) FROM memory_activity q
        WHERE q.microdao_id = a.microdao_id AND q.agent_id = a.agent_id), 0)::bigint AS queries,
    max(i.indexed_at) AS last_indexed_at
FROM agent a LEFT JOIN ({OF_AGENT} s JOIN memory_item i USING (scope_id))
    ON i.expires_at IS NULL OR i.expires_at > now()
WHERE a.microdao_id = current_microdao() AND a.agent_id = %(agent_id)s GROUP BY a.microdao_id, a.agent_id
"""


async def read_scope(connection: Connection, agent_id: str, scope: ScopeRef) -> Row:
    """Whether the ``agent`` exists, the ``scope_id`` (None without such a scope), and whether it is ``readable`` and
    ``writable`` (in the agent's own transaction)."""
    return await fetch_one(connection, _SCOPE, _scope_parameters(agent_id, scope)) or {}


async def make_scope(connection: Connection, agent_id: str, scope: ScopeRef) -> Row:
    """As :func:`read_scope`, in one round trip; the scope of the transaction's end user is made if it is missing."""
    if scope.kind != "user":
        return await read_scope(connection, agent_id, scope)
    named = _scope_parameters(agent_id, scope)
    async with connection.pipeline():
        await pass_gates(connection, agent_id, [scope.name])
        await connection.execute(_MAKE_USER_SCOPE)
        cursor = await connection.execute(_SCOPE, named)
    return await cursor.fetchone() or {}


async def pass_gates(connection: Connection, agent_id: str, user_ids: Sequence[str]) -> None:
    """Let none of these users of an agent be forgotten until the transaction ends; before it holds any memory."""
    await connection.execute(_GATES.format(shared="_shared"), {"agent_id": agent_id, "users": list(user_ids)})


async def close_gate(connection: Connection, agent_id: str, user_id: str) -> None:
    """Let nobody store for this user of an agent until the transaction ends; before it holds any memory."""
    await connection.execute(_GATES.format(shared=""), {"agent_id": agent_id, "users": [user_id]})


def _scope_parameters(agent_id: str, scope: ScopeRef) -> dict[str, str]:
    return {"agent_id": agent_id, "kind": scope.kind, "name": scope.name}


async def insert_item(connection: Connection, item: Mapping[str, Any]) -> str | None:
    """Keep an item with its postings and its job, or find it kept already (then its expiry is renewed); its state.

    None when another item has its id, and the item may not differ from it.
    """
    row = await fetch_one(connection, _INSERT, item)
    return str(row["state"]) if row else None


async def insert_items(connection: Connection, items: Sequence[Mapping[str, Any]]) -> None:
    """Keep many items in few round trips."""
    await connection.execute(_LOCK_ITEMS, ([item["id"] for item in items],))
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT, items)


async def read_item(connection: Connection, item_id: str) -> Row | None:
    """One item."""
    return await fetch_one(
        connection,
        f"SELECT {ITEM_COLUMNS} FROM memory_item i JOIN memory_scope s USING (scope_id)"
        " WHERE i.id = %s AND (i.expires_at IS NULL OR i.expires_at > now())",
        (item_id,),
    )


async def hold_items(connection: Connection, item_ids: Sequence[str]) -> set[str]:
    """Keep others from items, and from what goes with them, until the transaction ends; those that may be changed."""
    return {row["id"] for row in await fetch_all(connection, _HOLD, {"ids": list(item_ids)})}


async def delete_items(connection: Connection, item_ids: Sequence[str], scope_id: int | None = None) -> list[str]:
    """Forget items (of one scope only) with their postings and embeddings; the ids of those that were there."""
    await connection.execute(_LOCK_DOCUMENTS, (list(item_ids),))
    await hold_items(connection, item_ids)
    rows = await fetch_all(
        connection,
        "DELETE FROM memory_item WHERE id = ANY(%(ids)s)"
        " AND (%(scope_id)s::integer IS NULL OR scope_id = %(scope_id)s) RETURNING id, document_id",
        {"ids": list(item_ids), "scope_id": scope_id},
    )
    await delete_empty_documents(connection, rows)
    return [row["id"] for row in rows]


async def delete_matching(connection: Connection, scope: ScopeRef, filters: Filters) -> int:
    """Forget the items of a scope that the filters match; how many."""
    named = filter_parameters(filters) | {"kind": scope.kind, "name": scope.name}
    await connection.execute(_LOCK_MATCHING_DOCUMENTS, named)
    rows = await fetch_all(connection, _DELETE_MATCHING, named)
    await delete_empty_documents(connection, rows)
    return len(rows)


async def delete_empty_documents(connection: Connection, gone: Sequence[Mapping[str, Any]]) -> None:
    """Forget the documents (held by the caller) of which the items ``gone`` were the last: their titles and metadata
    are words, too."""
    if documents := {row["document_id"] for row in gone} - {None}:
        await connection.execute(
            "DELETE FROM memory_document d WHERE d.id = ANY(%s)"
            " AND NOT EXISTS (SELECT 1 FROM memory_item WHERE document_id = d.id)",
            (sorted(documents),),
        )


async def agent_exists(connection: Connection) -> bool:
    """Whether the transaction's agent is one."""
    return (
        await fetch_one(
            connection, "SELECT 1 FROM agent WHERE microdao_id = current_microdao() AND agent_id = current_agent()"
        )
        is not None
    )


async def list_items(connection: Connection, listing: Listing) -> list[Row]:
    """A page of items. Of ``matching`` (up to the limit) there are fewer when their texts are too large together."""
    moment, number = listing.before or (None, None)
    page = {"written_by": listing.written_by, "before_moment": moment, "before": number, "limit": listing.limit}
    return await fetch_all(connection, _LIST, filter_parameters(listing.filters) | page)


def filter_parameters(filters: Filters) -> dict[str, Any]:
    """The parameters of MATCHING, and ``scope_kinds``."""
    return {
        "tiers": list(filters.tiers),
        "scope_kinds": list(filters.scopes),
        "channel_id": filters.channel_id,
        "session_id": filters.session_id,
        "document_id": filters.document_id,
        "documents_only": filters.documents_only,
        "source": filters.source,
        "since": filters.since,
        "until": filters.until,
        "metadata": Jsonb(filters.metadata),
    }


async def read_stats(connection: Connection, agent_id: str) -> Row | None:
    """An agent's own memory and its users' in figures; None when there is no such agent."""
    return await fetch_one(connection, _STATS, {"agent_id": agent_id})
