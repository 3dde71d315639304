"""The client: raw sockets with keep-alive, so that it costs little and is the same for every subject."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send what."""

    url: str
    key: str
    model: str

    def request(self, *, stream: bool) -> bytes:
        """One HTTP request."""
        parts = urlsplit(self.url)
        document: dict[str, object] = {"model": self.model, "messages": [{"role": "user", "content": "Hello!"}]}
        if stream:
            document |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(document).encode()
        head = [
            f"POST {parts.path}/chat/completions HTTP/1.1",
            f"host: {parts.netloc}",
            f"authorization: Bearer {self.key}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one round, in milliseconds."""

    values: list[float]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return statistics.quantiles(self.values, n=100)[98]


async def drive(target: Target, *, connections: int, requests: int, stream: bool = False) -> Latencies:
    """Send ``requests`` over ``connections``; every answer must be a 200."""
    left = iter(range(requests))
    values: list[float] = []
    await asyncio.gather(*(_connection(target, left, values, stream) for _ in range(connections)))
    return Latencies(values)


async def _connection(target: Target, left: object, values: list[float], stream: bool) -> None:
    parts = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = target.request(stream=stream)
    for _ in left:  # type: ignore[attr-defined]
        began = time.perf_counter()
        writer.write(request)
        await _read_answer(reader)
        values.append((time.perf_counter() - began) * 1000)
    writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"not a 200: {head[:200]!r}")
    lines = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")[1:]}
    if b"content-length" in lines:
        await reader.readexactly(int(lines[b"content-length"]))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)
