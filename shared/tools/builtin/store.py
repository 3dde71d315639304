"""SQL of the rows that built-in tools work on: projects, tasks, documents; and who may be meant by a name."""

from datetime import datetime
from typing import Any

from shared.db.database import Connection, Row, fetch_all, fetch_one

_SNIPPET = 'StartSel="", StopSel="", MaxWords=60, MinWords=30, ShortWord=0'


async def insert_project(
    connection: Connection, project_id: str, microdao_id: str, *, name: str, description: str, created_by: str
) -> bool:
    """Add a project; False when the name is taken."""
    row = await fetch_one(
        connection,
        "INSERT INTO project (id, microdao_id, name, description, created_by) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (microdao_id, name) DO NOTHING RETURNING id",
        (project_id, microdao_id, name, description, created_by),
    )
    return row is not None


async def list_projects(connection: Connection, limit: int, *, archived: bool = False) -> list[Row]:
    """Projects in use, or archived ones, newest first, with their open tasks and the number of all such projects."""
    return await fetch_all(
        connection,
        "SELECT id, name, description, created_by, created_at, archived_at, count(*) OVER () AS total,"
        " (SELECT count(*) FROM task WHERE task.project_id = project.id AND state = 'open') AS open_tasks"
        " FROM project WHERE (archived_at IS NOT NULL) = %s ORDER BY id DESC LIMIT %s",
        (archived, limit),
    )


async def update_project(
    connection: Connection, project_id: str, *, name: str | None, description: str | None, archived: bool | None
) -> Row | None:
    """Change what is not None; the project as it is now. Raises UniqueViolation for a name that is taken."""
    return await fetch_one(
        connection,
        "UPDATE project SET name = coalesce(%(name)s, name), description = coalesce(%(description)s, description),"
        " archived_at = CASE %(archived)s::boolean WHEN true THEN coalesce(archived_at, now()) WHEN false THEN NULL"
        " ELSE archived_at END WHERE id = %(id)s RETURNING id, name, description, archived_at",
        {"id": project_id, "name": name, "description": description, "archived": archived},
    )


async def find_project(connection: Connection, asked: str) -> Row | None:
    """The project with this id or name; exact before a name that differs in case only."""
    return await fetch_one(
        connection,
        "SELECT id, name, archived_at FROM project WHERE id = %(asked)s OR lower(name) = lower(%(asked)s)"
        " ORDER BY id = %(asked)s DESC, name = %(asked)s DESC, id LIMIT 1",
        {"asked": asked},
    )


async def insert_task(
    connection: Connection,
    task_id: str,
    microdao_id: str,
    *,
    project_id: str | None,
    title: str,
    description: str,
    assignee: str | None,
    due_at: datetime | None,
    created_by: str,
) -> None:
    """Add an open task."""
    await connection.execute(
        "INSERT INTO task (id, microdao_id, project_id, title, description, assignee, due_at, created_by)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (task_id, microdao_id, project_id, title, description, assignee, due_at, created_by),
    )


async def find_tasks(connection: Connection, asked: str, limit: int) -> list[Row]:
    """The task with this id, or those with this title in whatever case; open ones first, then the newest."""
    return await fetch_all(
        connection,
        "SELECT id, title, state FROM task WHERE id = %(asked)s OR lower(title) = lower(%(asked)s)"
        " ORDER BY id = %(asked)s DESC, state = 'open' DESC, id DESC LIMIT %(limit)s",
        {"asked": asked, "limit": limit},
    )


async def update_task(connection: Connection, task_id: str, changes: dict[str, Any]) -> Row | None:
    """Set the columns that ``changes`` names (title, description, state, project_id, assignee, due_at); the task."""
    columns = ("title", "description", "state", "project_id", "assignee", "due_at")
    given = {f"has_{column}": column in changes for column in columns}
    return await fetch_one(
        connection,
        "UPDATE task SET title = CASE WHEN %(has_title)s THEN %(title)s ELSE title END,"
        " description = CASE WHEN %(has_description)s THEN %(description)s ELSE description END,"
        " state = CASE WHEN %(has_state)s THEN %(state)s ELSE state END,"
        " done_at = CASE WHEN NOT %(has_state)s THEN done_at"
        "  WHEN %(state)s::text = 'done' THEN coalesce(done_at, now()) END,"
        " project_id = CASE WHEN %(has_project_id)s THEN %(project_id)s ELSE project_id END,"
        " assignee = CASE WHEN %(has_assignee)s THEN %(assignee)s ELSE assignee END,"
        " due_at = CASE WHEN %(has_due_at)s THEN %(due_at)s::timestamptz ELSE due_at END"
        " WHERE id = %(id)s RETURNING id, title, description, state, assignee, due_at, done_at,"
        " (SELECT name FROM project WHERE project.id = task.project_id) AS project",
        {"id": task_id, **dict.fromkeys(columns), **changes, **given},
    )


async def list_tasks(
    connection: Connection,
    *,
    project_id: str | None,
    state: str | None,
    assignee: str | None,
    due_before: datetime | None,
    limit: int,
) -> list[Row]:
    """Tasks that fit what is given, newest first, or soonest due first with ``due_before``; with the number of all."""
    return await fetch_all(
        connection,
        "SELECT task.id, title, task.description, state, project.name AS project, assignee, due_at, done_at,"
        " task.created_by, task.created_at, count(*) OVER () AS total"
        " FROM task LEFT JOIN project ON project.id = task.project_id"
        " WHERE (%(project_id)s::text IS NULL OR task.project_id = %(project_id)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s)"
        " AND (%(assignee)s::text IS NULL OR assignee = %(assignee)s)"
        " AND (%(due_before)s::timestamptz IS NULL OR due_at < %(due_before)s)"
        " ORDER BY CASE WHEN %(due_before)s::timestamptz IS NOT NULL THEN due_at END, task.id DESC LIMIT %(limit)s",
        {"project_id": project_id, "state": state, "assignee": assignee, "due_before": due_before, "limit": limit},
    )


async def find_agent(connection: Connection, asked: str) -> str | None:
    """The id of the agent with this id (``agent:`` may be left out), or with this name in whatever case."""
    row = await fetch_one(
        connection,
        "SELECT agent_id FROM agent WHERE agent_id IN (%(asked)s, 'agent:' || %(asked)s)"
        " OR lower(name) = lower(%(asked)s)"
        " ORDER BY agent_id = %(asked)s DESC, agent_id = 'agent:' || %(asked)s DESC, agent_id LIMIT 1",
        {"asked": asked},
    )
    return row["agent_id"] if row else None


async def list_agents(connection: Connection, limit: int) -> list[str]:
    """The ids of the first agents."""
    rows = await fetch_all(connection, "SELECT agent_id FROM agent ORDER BY agent_id LIMIT %s", (limit,))
    return [row["agent_id"] for row in rows]


async def search_documents(connection: Connection, query: str, limit: int) -> list[Row]:
    """Help pages that hold any word of the query, best first; a word weighs more the fewer pages hold it.

    The best page's ``score`` is the share of the query's weight that it holds, the others' fall as their ranks do.
    ``matched`` names the words of the query that a page holds, so that a reader can tell a fit from a chance hit.
    The weight is BM25's inverse document frequency (Robertson and Zaragoza, The Probabilistic Relevance Framework).
    """
    return await fetch_all(
        connection,
        "WITH word AS ("
        "  SELECT lexeme, ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query"
        "  FROM unnest(to_tsvector('simple', %(query)s))"
        "), hit AS ("
        "  SELECT document.id, word.lexeme, ts_rank(document.lexemes, word.query) AS rank"
        "  FROM word JOIN document ON document.lexemes @@ word.query"
        "), weighed AS ("
        "  SELECT word.lexeme, ln(1 + (total - holders + 0.5) / (holders + 0.5)) AS weight FROM word"
        "  CROSS JOIN (SELECT count(*) AS total FROM document) AS pages"
        "  CROSS JOIN LATERAL (SELECT count(*) AS holders FROM hit WHERE hit.lexeme = word.lexeme) AS held"
        "), best AS ("
        "  SELECT id, sum(rank * weight) AS rank, sum(weight) / (SELECT sum(weight) FROM weighed) AS share,"
        "   array_agg(lexeme ORDER BY lexeme) AS matched"
        "  FROM hit JOIN weighed USING (lexeme) GROUP BY id ORDER BY rank DESC, id LIMIT %(limit)s"
        ") SELECT id, title, source, matched, first_value(share) OVER ranked * rank / first_value(rank) OVER ranked"
        "  AS score, ts_headline('simple', body, (SELECT string_agg(query::text, ' | ')::tsquery FROM word),"
        "  %(snippet)s) AS snippet"
        " FROM best JOIN document USING (id) WINDOW ranked AS (ORDER BY rank DESC, id) ORDER BY rank DESC, id",
        {"query": query, "limit": limit, "snippet": _SNIPPET},
    )
