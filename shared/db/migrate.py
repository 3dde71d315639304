"""Forward migrations: the numbered files of ``migrations/``, each applied once, in its own transaction."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from shared.db.database import AGENT_ROLE, SYSTEM_ROLE, TENANT_ROLE, Database

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 4_217_001  # any constant: two starting processes must not migrate at once


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name, text and checksum."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Of the file as applied; an applied file must never change."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def available_migrations() -> list[Migration]:
    """Every migration in this version of the code, in order."""
    return [Migration(path.stem, path.read_text(encoding="utf-8")) for path in sorted(MIGRATIONS.glob("*.sql"))]


def migrate(url: str, *, runtime_login: str | None = None) -> list[str]:
    """Bring the schema up to date and return the names applied now.

    ``runtime_login`` is allowed to act as the tenant and system roles. Raises RuntimeError when an applied file
    was edited.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        _create_roles(connection, runtime_login)
        applied = _applied(connection)
        pending = [one for one in available_migrations() if _is_pending(one, applied)]
        for migration in pending:
            _apply(connection, migration)
    return [migration.name for migration in pending]


async def missing_migrations(database: Database, timeout_s: float) -> list[str]:
    """Names of migrations that this code has and the database lacks. Raises Unavailable after ``timeout_s``."""
    rows = await database.run("SELECT name FROM schema_migration", timeout_s=timeout_s)
    applied = {row["name"] for row in rows}
    return [migration.name for migration in available_migrations() if migration.name not in applied]


def _create_roles(connection: psycopg.Connection, runtime_login: str | None) -> None:
    for role in (TENANT_ROLE, SYSTEM_ROLE, AGENT_ROLE):
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if not known:
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOINHERIT").format(sql.Identifier(role)))
        member = sql.Identifier(runtime_login) if runtime_login else sql.SQL("CURRENT_USER")
        connection.execute(sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(sql.Identifier(role), member))


def _applied(connection: psycopg.Connection) -> dict[str, str]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration"
        " (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    connection.execute(sql.SQL("GRANT SELECT ON schema_migration TO {}").format(sql.Identifier(SYSTEM_ROLE)))
    return dict(connection.execute("SELECT name, checksum FROM schema_migration").fetchall())


def _is_pending(migration: Migration, applied: dict[str, str]) -> bool:
    if migration.name not in applied:
        return True
    if applied[migration.name] != migration.checksum:
        raise RuntimeError(f"migration {migration.name} was edited after it was applied; add a new one instead")
    return False


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    with connection.transaction():
        connection.execute(migration.text.encode())
        connection.execute(
            "INSERT INTO schema_migration (name, checksum) VALUES (%s, %s)", (migration.name, migration.checksum)
        )
