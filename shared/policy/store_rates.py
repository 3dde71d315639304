"""SQL of the calls of tools that are counted."""

from shared.db.database import Database, Row

# One row a tool (and agent), locked by the upsert: calls that come together are counted one after another. The minute
# begins with its first call. What is refused is not written; then the row tells how long to wait.
_TAKE = """
WITH taken AS (
    INSERT INTO tool_rate AS rate (microdao_id, tool, agent_id) VALUES (%(microdao_id)s, %(tool)s, %(agent_id)s)
    ON CONFLICT (microdao_id, tool, agent_id) DO UPDATE SET
        calls = CASE WHEN rate.began_at <= now() - interval '1 minute' THEN 1 ELSE rate.calls + 1 END,
        began_at = CASE WHEN rate.began_at <= now() - interval '1 minute' THEN now() ELSE rate.began_at END
    WHERE rate.began_at <= now() - interval '1 minute' OR rate.calls < %(limit)s
    RETURNING 1
)
SELECT EXISTS (SELECT FROM taken) AS taken, (
    SELECT extract(epoch FROM began_at + interval '1 minute' - now())::float FROM tool_rate
    WHERE microdao_id = %(microdao_id)s AND tool = %(tool)s AND agent_id = %(agent_id)s
) AS wait_s
"""


async def take(database: Database, microdao_id: str, tool: str, agent_id: str, limit: int) -> Row:
    """Count a call if the limit has room: whether it was ``taken``, else how long the minute still lasts (if known).

    Sent again after a broken connection, a call may count twice.
    """
    asked = {"microdao_id": microdao_id, "tool": tool, "agent_id": agent_id, "limit": limit}
    rows = await database.run(_TAKE, asked, microdao_id=microdao_id)
    return rows[0]
