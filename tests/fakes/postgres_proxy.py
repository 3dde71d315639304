"""A TCP proxy before Postgres that counts round trips: how often the client spoke after the server did."""

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class PostgresProxy:
    """An async context manager; ``url`` is the given URL by way of this proxy. One client connection at a time."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._client_spoke_last = False
        self.round_trips = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._target.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._target._replace(netloc=f"{user}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Close every connection, as a server does that restarts."""
        for writer in self._writers:
            writer.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname
        server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, server_writer}
        for source, sink, is_client in ((reader, server_writer, True), (server_reader, writer, False)):
            pipe = asyncio.create_task(self._pipe(source, sink, is_client=is_client))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_client: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                if is_client and not self._client_spoke_last:
                    self.round_trips += 1
                self._client_spoke_last = is_client
                sink.write(data)
                await sink.drain()
        sink.close()
