"""Imports: bring tools in from a source, and look at it again. A tool whose definition changed there does not run until
an administrator has approved it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.db.database import Database, Row
from shared.errors import ApiError, InvalidRequest, NotFound, Unavailable, UpstreamError
from shared.ids import new_id
from shared.observability import Log
from shared.policy.principal import Principal
from shared.tools.arguments import check_text
from shared.tools.catalogue.configs import ConfigChecks
from shared.tools.catalogue.definition import canonical_hash
from shared.tools.catalogue.imports import store_imports
from shared.tools.catalogue.imports.apply import Target, apply, sound
from shared.tools.catalogue.imports.fetch import parse_document
from shared.tools.catalogue.imports.model import Reading, Report
from shared.tools.catalogue.imports.openapi import OpenApiOptions, read_openapi
from shared.tools.catalogue.imports.remote import FetchDocument, ListRemoteTools, McpOptions, read_server
from shared.tools.model import ToolFailed

CHECK_EVERY_S: Final = 3_600.0
_DUE_AT_ONCE: Final = 20
_MAX_ERROR: Final = 500
_REFRESH: Final = "refresh"

_log = Log("tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What to do with new tools, and whether to do anything."""

    active: bool = True
    grant_to: Sequence[str] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """How to look at a source again; ``key`` is its identity."""

    kind: str
    about: dict[str, Any]
    is_lasting: bool = True

    @property
    def key(self) -> str:
        where = {field: self.about.get(field) for field in ("url", "base_url", "prefix", "title")}
        return canonical_hash([self.kind, where])


class Imports:
    """Each method but ``refresh_due`` works in one microDAO. Without a port its sources cannot be reached."""

    def __init__(
        self,
        database: Database,
        checks: ConfigChecks,
        *,
        fetch_document: FetchDocument | None = None,
        list_remote_tools: ListRemoteTools | None = None,
    ) -> None:
        self._database = database
        self._checks = checks
        self._fetch_document = fetch_document
        self._list_remote_tools = list_remote_tools

    async def import_openapi(
        self, principal: Principal, document: Any, wanted: OpenApiOptions, options: ImportOptions
    ) -> Report:
        """Make a tool of each operation; ``document`` is got from ``wanted.url`` when it is None. All in one go.

        Raises InvalidRequest (also when the document cannot be had), TooLarge, NotFound (an agent).
        """
        _check_wanted(wanted.base_url, wanted.url, wanted.prefix)
        is_lasting = document is None
        if isinstance(document, str):
            document = await asyncio.to_thread(parse_document, document)
        if document is None:
            with _callers_fault():
                document = await self._document(principal.microdao_id, str(wanted.url), wanted.secret_ref)
        reading = await asyncio.to_thread(read_openapi, document, wanted)
        about = {
            "url": wanted.url,
            "base_url": wanted.base_url,
            "secret_ref": wanted.secret_ref,
            "prefix": wanted.prefix,
            **({} if is_lasting or wanted.base_url else {"title": reading.title}),
        }
        source = _Source(kind="openapi", about=about, is_lasting=is_lasting)
        return await self._bring_in(principal, source, reading, options, is_whole=wanted.operations is None)

    async def import_mcp(self, principal: Principal, wanted: McpOptions, options: ImportOptions) -> Report:
        """Make a tool of each of the server's. Raises InvalidRequest, NotFound (an agent)."""
        _check_wanted(None, wanted.url, wanted.prefix)
        with _callers_fault():
            server = await self._server(principal.microdao_id, wanted)
        reading = await asyncio.to_thread(read_server, server, wanted)
        about = {"url": wanted.url, "secret_ref": wanted.secret_ref, "prefix": wanted.prefix}
        source = _Source(kind="mcp", about=about)
        return await self._bring_in(principal, source, reading, options, is_whole=wanted.tools is None)

    async def refresh(self, principal: Principal, import_id: str) -> Report:
        """Look at a source again. What changed or vanished is disabled; what is new is told of, not made.

        Raises NotFound, InvalidRequest (a source that cannot be looked at), UpstreamError.
        """
        return await self._refresh(principal.microdao_id, import_id, principal.key_id)

    async def refresh_due(self) -> int:
        """Look at the sources whose time has come, of every microDAO; how many. For the schedule."""
        async with self._database.system() as connection:
            due = await store_imports.take_due(connection, _DUE_AT_ONCE, CHECK_EVERY_S)
        for row in due:
            try:
                await self._refresh(row["microdao_id"], row["id"], _REFRESH)
            except ApiError as error:
                _log.warning("an import could not be looked at", import_id=row["id"], code=error.code)
        return len(due)

    async def list_page(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """Imports by id, from the one after ``after``, with how many ``tools`` they have, ``pending``, ``vanished``."""
        check_text(after, "after")
        async with self._database.tenant(microdao_id) as connection:
            return await store_imports.list_imports(connection, after, limit)

    async def delete(self, microdao_id: str, import_id: str) -> None:
        """Forget a source; its tools stay and are not looked at again. Raises NotFound."""
        check_text(import_id, "import_id")
        async with self._database.tenant(microdao_id) as connection:
            if not await store_imports.delete_import(connection, import_id):
                raise _no_import(import_id)

    async def _bring_in(
        self, principal: Principal, source: _Source, reading: Reading, options: ImportOptions, *, is_whole: bool
    ) -> Report:
        reading = await asyncio.to_thread(sound, reading, self._checks)
        async with (
            self._database.tenant(principal.microdao_id) as connection,
            connection.transaction(force_rollback=options.dry_run),
        ):
            import_id = await store_imports.hold_import(
                connection,
                {
                    "id": new_id("timp"),
                    "microdao_id": principal.microdao_id,
                    "kind": source.kind,
                    "key": source.key,
                    "title": reading.title,
                    "source": source.about,
                    "created_by": principal.key_id,
                    "next_check_s": CHECK_EVERY_S if source.is_lasting else None,
                },
            )
            target = Target(
                microdao_id=principal.microdao_id,
                import_id=import_id,
                actor=principal.key_id,
                is_whole=is_whole,
                active=options.active,
                grant_to=options.grant_to,
            )
            lines = await apply(connection, target, reading)
        if options.dry_run:
            lines = [replace(line, tool_id=None) if line.outcome == "made" else line for line in lines]
        return Report(
            title=reading.title,
            lines=lines,
            import_id=None if options.dry_run else import_id,
            dry_run=options.dry_run,
        )

    async def _refresh(self, microdao_id: str, import_id: str, actor: str) -> Report:
        check_text(import_id, "import_id")
        async with self._database.tenant(microdao_id) as connection:
            row = await store_imports.find_import(connection, import_id)
        if row is None:
            raise _no_import(import_id)
        try:
            reading = await self._read_again(row)
        except ApiError as error:
            async with self._database.tenant(microdao_id) as connection:
                message = error.message[:_MAX_ERROR]
                await store_imports.note_check_failed(connection, import_id, message, CHECK_EVERY_S)
            raise
        reading = await asyncio.to_thread(sound, reading, self._checks)
        async with self._database.tenant(microdao_id) as connection:
            held = {**row, "next_check_s": CHECK_EVERY_S, "title": reading.title}
            await store_imports.hold_import(connection, held)
            target = Target(microdao_id=microdao_id, import_id=import_id, actor=actor, makes=False)
            lines = await apply(connection, target, reading)
        return Report(title=reading.title, lines=lines, import_id=import_id)

    async def _read_again(self, row: Row) -> Reading:
        about = row["source"]
        if row["kind"] == "mcp":
            wanted = McpOptions(url=about["url"], secret_ref=about["secret_ref"], prefix=about["prefix"])
            server = await self._server(row["microdao_id"], wanted)
            return await asyncio.to_thread(read_server, server, wanted)
        if row["next_check_at"] is None:
            raise InvalidRequest("this document was sent, not fetched: import it again", param="import_id")
        options = OpenApiOptions(**about)
        document = await self._document(row["microdao_id"], about["url"], about["secret_ref"])
        return await asyncio.to_thread(read_openapi, document, options)

    async def _document(self, microdao_id: str, url: str, secret_ref: str | None) -> Any:
        if self._fetch_document is None:
            raise Unavailable("this installation cannot fetch documents: send it in document")
        fetch = self._fetch_document
        return await _reached(lambda: fetch(microdao_id, url, secret_ref))

    async def _server(self, microdao_id: str, wanted: McpOptions) -> Any:
        if self._list_remote_tools is None:
            raise Unavailable("this installation cannot reach MCP servers")
        list_tools = self._list_remote_tools
        return await _reached(lambda: list_tools(microdao_id, wanted.server))


async def _reached(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await ask()
    except ToolFailed as error:
        raise UpstreamError(f"the source cannot be read: {error.message}", param="url") from None


@contextmanager
def _callers_fault() -> Iterator[None]:
    """Whoever names a source that cannot be read is told that the name is wrong."""
    try:
        yield
    except UpstreamError as error:
        raise InvalidRequest(error.message, param="url") from None


def _check_wanted(base_url: str | None, url: str | None, prefix: str) -> None:
    for field, value in (("base_url", base_url), ("url", url), ("prefix", prefix)):
        check_text(value or "", field)
    for field, value in (("base_url", base_url), ("url", url)):
        if value is not None and not value.startswith(("https://", "http://")):
            raise InvalidRequest(f"{field} must begin with https:// or http://", param=field)


def _no_import(import_id: str) -> NotFound:
    return NotFound(f"no import {import_id[:100]!r}", param="import_id")
