"""A fast stand-in for a provider: canned chat completions over raw asyncio, whole or as 64 streamed chunks with usage.

Run it as ``python -m bench.gateway.upstream PORT``. It answers tens of thousands of requests a second, so that what is
measured is the gateway in front of it.
"""

import asyncio
import json
import sys

CHUNKS = 64
_USAGE = {"prompt_tokens": 9, "completion_tokens": 64, "total_tokens": 73}
_HEAD = {"id": "chatcmpl-bench", "created": 1, "model": "gpt-4.1-mini"}
_MESSAGE = {"role": "assistant", "content": "Hello! How can I help you today?", "refusal": None}
_WHOLE = json.dumps(
    _HEAD
    | {"object": "chat.completion", "usage": _USAGE}
    | {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop", "logprobs": None}]}
).encode()
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_WHOLE), _WHOLE)


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    data = b"data: " + json.dumps(_HEAD | {"object": "chat.completion.chunk", "choices": choices} | more).encode()
    return b"%x\r\n%s\n\n\r\n" % (len(data) + 2, data)


def _choice(delta: dict[str, object], finish_reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}]


_STREAM = b"".join(
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        _event(_choice({"role": "assistant", "content": ""})),
        *[_event(_choice({"content": f"word{number} "})) for number in range(CHUNKS)],
        _event(_choice({}, "stop")),
        _event([], usage=_USAGE),
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    ]
)


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request in the buffer."""
        self._buffer += data
        while self._answer_one():
            pass

    def _answer_one(self) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator or self._transport is None:
            return False
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return False
        body, self._buffer = rest[:length], rest[length:]
        streams = b'"stream":true' in body.replace(b": ", b":")
        self._transport.write(_STREAM if streams else _JSON)
        return True


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
