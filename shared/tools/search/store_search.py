"""The SQL of searching: what has changed, the active tools, their words and vectors, whom they are granted to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one
from shared.tools.search.filters import Entry
from shared.tools.search.index import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

_STATE: Final = """
SELECT count(*) AS changes, max(change) AS newest, bit_xor(hashint8extended(change, 0)) AS mark,
    EXISTS (SELECT 1 FROM tool_frame WHERE space_id = %(space_id)s AND bank_hash = %(bank_hash)s) AS has_frame,
    EXISTS (SELECT 1 FROM agent WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s) AS is_known
FROM tool_change WHERE microdao_id = current_microdao()
"""

_ACTIVE: Final = """
SELECT e.entry, t.id, t.name, v.risk, v.executor, v.environments
FROM tool t JOIN tool_version v ON v.tool_id = t.id AND v.version = t.active_version
JOIN tool_entry e ON e.tool_id = v.tool_id AND e.version = v.version
WHERE t.microdao_id = current_microdao() AND t.active ORDER BY e.entry
"""

_PERMITTED: Final = """
SELECT array_agg(e.entry ORDER BY e.entry) AS entries
FROM tool_grant g JOIN tool t ON t.id = g.tool_id AND t.active
JOIN tool_entry e ON e.tool_id = t.id AND e.version = t.active_version
WHERE g.microdao_id = current_microdao() AND g.agent_id = %s
"""

# pgvector's binary form: two numbers of 16 bits, then each component in half precision, high byte first.
_VECTORS: Final = """
SELECT entry, halfvec_send(embedding) AS vector FROM tool_embedding
WHERE space_id = %s AND entry = ANY(%s::bigint[]) ORDER BY entry
"""

_FRAME: Final = """
SELECT halfvec_send(request_mean) AS request_mean, halfvec_send(tool_mean) AS tool_mean,
    halfvec_send(direction) AS direction
FROM tool_frame WHERE space_id = %s AND bank_hash = %s
"""

_COUNT_PROMPT: Final = """
INSERT INTO tool_prompt AS p (microdao_id, agent_id, prompts, searched, tools, granted)
SELECT microdao_id, agent_id, 1, %(searched)s, %(tools)s, %(granted)s FROM agent
WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s
ON CONFLICT (microdao_id, agent_id, day) DO UPDATE SET prompts = p.prompts + 1,
    searched = p.searched + EXCLUDED.searched, tools = p.tools + EXCLUDED.tools, granted = p.granted + EXCLUDED.granted
"""


async def read_state(database: Database, microdao_id: str, agent_id: str, space_id: int, bank_hash: bytes) -> Row:
    """What tells one state of a catalogue and its grants from every other, and whether the agent ``is_known``.

    One round trip. Late commits come with numbers below the newest: they show in the count and the mark.
    """
    (row,) = await database.run(
        _STATE, {"agent_id": agent_id, "space_id": space_id, "bank_hash": bank_hash}, microdao_id=microdao_id
    )
    return row


async def read_active(connection: Connection) -> list[Entry]:
    """Every active tool of the transaction's microDAO."""
    return [
        Entry(row["entry"], row["id"], row["name"], row["risk"], row["executor"], tuple(row["environments"]))
        for row in await fetch_all(connection, _ACTIVE)
    ]


async def read_permitted(connection: Connection, agent_id: str) -> list[int]:
    """The entries of the active tools that the agent was granted, ascending."""
    row = await fetch_one(connection, _PERMITTED, (agent_id,))
    return list(row["entries"] or ()) if row else []


async def read_words(connection: Connection, lexicon: int, entries: Sequence[int]) -> list[Words]:
    """The words of those entries that have some of this lexicon."""
    rows = await fetch_all(
        connection,
        "SELECT entry, terms, frequencies FROM tool_entry"
        " WHERE entry = ANY(%s::bigint[]) AND lexicon = %s ORDER BY entry",
        (list(entries), lexicon),
    )
    return [Words(row["entry"], row["terms"], row["frequencies"]) for row in rows]


async def read_vectors(connection: Connection, space_id: int, entries: Sequence[int]) -> "dict[int, Matrix]":
    """The vectors of those entries that have one in the space."""
    rows = await fetch_all(connection, _VECTORS, (space_id, list(entries)))
    return {row["entry"]: _vector(row["vector"]) for row in rows}


async def read_frame(connection: Connection, space_id: int, bank_hash: bytes) -> "Mapping[str, Matrix] | None":
    """The space's frame by the names of its fields, if it was fitted."""
    row = await fetch_one(connection, _FRAME, (space_id, bank_hash))
    return {name: _vector(value) for name, value in row.items()} if row else None


async def count_prompt(database: Database, microdao_id: str, agent_id: str, figures: Mapping[str, Any]) -> None:
    """Add a prompt with so many ``tools`` of so many ``granted``, chosen by search (``searched`` 1) or not (0)."""
    await database.run(_COUNT_PROMPT, {"agent_id": agent_id, **figures}, microdao_id=microdao_id)


def _vector(sent: bytes) -> "Matrix":
    import numpy as np

    return np.frombuffer(sent, ">f2", offset=4).astype(np.float32)
