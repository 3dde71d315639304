"""SQL of the rows that built-in tools work on: projects, tasks, documents."""

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


async def list_projects(connection: Connection, limit: int) -> list[Row]:
    """Projects, newest first, with their open tasks and the number of all projects."""
    return await fetch_all(
        connection,
        "SELECT id, name, description, created_by, created_at, count(*) OVER () AS total,"
        " (SELECT count(*) FROM task WHERE task.project_id = project.id AND state = 'open') AS open_tasks"
        " FROM project ORDER BY id DESC LIMIT %s",
        (limit,),
    )


async def find_project(connection: Connection, asked: str) -> Row | None:
    """The project with this id or name; exact before a name that differs in case only."""
    return await fetch_one(
        connection,
        "SELECT id, name FROM project WHERE id = %(asked)s OR lower(name) = lower(%(asked)s)"
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
    created_by: str,
) -> None:
    """Add an open task."""
    await connection.execute(
        "INSERT INTO task (id, microdao_id, project_id, title, description, created_by)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (task_id, microdao_id, project_id, title, description, created_by),
    )


async def list_tasks(connection: Connection, *, project_id: str | None, state: str | None, limit: int) -> list[Row]:
    """Tasks, newest first, of one project and in one state where given, with the number of all that fit."""
    return await fetch_all(
        connection,
        "SELECT task.id, title, task.description, state, project.name AS project, task.created_by, task.created_at,"
        " count(*) OVER () AS total"
        " FROM task LEFT JOIN project ON project.id = task.project_id"
        " WHERE (%(project_id)s::text IS NULL OR task.project_id = %(project_id)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s)"
        " ORDER BY task.id DESC LIMIT %(limit)s",
        {"project_id": project_id, "state": state, "limit": limit},
    )


async def search_documents(connection: Connection, query: str, limit: int) -> list[Row]:
    """Documents that hold any word of the query, best first; a word weighs more the fewer documents hold it.

    ``matched`` names the words of the query that a document holds, so that a reader can tell a fit from a chance hit.
    The weight is BM25's inverse document frequency (Robertson and Zaragoza, The Probabilistic Relevance Framework).
    """
    return await fetch_all(
        connection,
        "WITH word AS ("
        "  SELECT lexeme, ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query"
        "  FROM unnest(to_tsvector('simple', %(query)s))"
        "), hit AS ("
        "  SELECT document.id, word.lexeme, ts_rank(document.lexemes, word.query) AS rank,"
        "   count(*) OVER (PARTITION BY word.lexeme) AS holders, (SELECT count(*) FROM document) AS total"
        "  FROM word JOIN document ON document.lexemes @@ word.query"
        "), best AS ("
        "  SELECT id, sum(rank * ln(1 + (total - holders + 0.5) / (holders + 0.5))) AS score,"
        "   array_agg(lexeme ORDER BY lexeme) AS matched"
        "  FROM hit GROUP BY id ORDER BY score DESC, id LIMIT %(limit)s"
        ") SELECT id, title, source, score, matched, ts_headline('simple', body,"
        "  (SELECT string_agg(query::text, ' | ')::tsquery FROM word), %(snippet)s) AS snippet"
        " FROM best JOIN document USING (id) ORDER BY score DESC, id",
        {"query": query, "limit": limit, "snippet": _SNIPPET},
    )
