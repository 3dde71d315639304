"""Recorded shapes of providers' traffic, replayed over HTTP: what goes out, what comes of the answer.

Each file under ``golden/<provider>/`` has a caller's ``request`` with the route's ``model``, the body that must be
``sent``, the bytes ``received``, and what must come of them: an ``answer``, or ``deltas`` with ``finish_reason`` and
``usage`` or an ``error``.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared import errors
from shared.llm.providers import anthropic, openai_compatible
from shared.llm.providers.base import Delta, End, Endpoint, Quirks
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.local import LOCAL_QUIRKS
from shared.llm.providers.registry import DEEPSEEK_QUIRKS, OPENAI_QUIRKS
from shared.llm.providers.remote import RemoteProvider
from shared.wire.chat import ChatRequest
from tests.fakes import anthropic_server, openai_server
from tests.fakes.server import FakeServer

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.glob("*/*.yaml"))
DIALECTS = {
    "openai": (openai_compatible.DIALECT, OPENAI_QUIRKS, openai_server),
    "deepseek": (openai_compatible.DIALECT, DEEPSEEK_QUIRKS, openai_server),
    "local": (openai_compatible.DIALECT, LOCAL_QUIRKS, openai_server),
    "anthropic": (anthropic.DIALECT, Quirks(max_tokens=8192), anthropic_server),
}


class Replay:
    """A provider of one case, beside the server that replays it."""

    def __init__(self, name: str) -> None:
        folder = name.partition("/")[0]
        self.case = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
        self.dialect, self.quirks, self.module = DIALECTS[folder]
        self.server: FakeServer = self.module.FakeAnthropic() if folder == "anthropic" else self.module.FakeOpenAI()
        self.request = ChatRequest.model_validate({"model": "cheap"} | self.case["request"])
        self.folder = folder

    async def start(self) -> RemoteProvider:
        await self.server.start()
        self.server.will(self.module.Reply(raw=self.case["received"]))
        endpoint = Endpoint(provider=self.folder, base_url=self.server.base_url, api_key="sk-fake")
        return RemoteProvider(endpoint=endpoint, dialect=self.dialect, quirks=self.quirks, transport=HttpTransport(5.0))


@pytest.fixture
async def replay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Replay, RemoteProvider]]:
    made = Replay(request.param)
    provider = await made.start()
    yield made, provider
    await provider.transport.close()
    await made.server.stop()


def cases(*, streamed: bool) -> list[str]:
    return [name for name in CASES if Replay(name).request.stream == streamed]


async def read(provider: RemoteProvider, asked: ChatRequest, model: str) -> tuple[list[Delta], End | Exception]:
    deltas: list[Delta] = []
    try:
        async with aclosing(provider.stream(asked, model)) as parts:
            async for part in parts:
                if isinstance(part, End):
                    return deltas, part
                deltas.append(part)
    except errors.ApiError as error:
        return deltas, error
    raise AssertionError("the stream has no end")


def check_sent(made: Replay) -> None:
    if "sent" in made.case:
        assert made.server.requests[0].body == made.case["sent"]


@pytest.mark.parametrize("replay", cases(streamed=False), indirect=True)
async def test_whole(replay: tuple[Replay, RemoteProvider]) -> None:
    made, provider = replay
    answer = await provider.complete(made.request, made.case["model"])
    check_sent(made)
    found: dict[str, Any] = {name: getattr(answer, name) for name in ("message", "finish_reason", "usage")}
    assert found == made.case["answer"]


@pytest.mark.parametrize("replay", cases(streamed=True), indirect=True)
async def test_streamed(replay: tuple[Replay, RemoteProvider]) -> None:
    made, provider = replay
    deltas, end = await read(provider, made.request, made.case["model"])
    check_sent(made)
    assert [delta.delta for delta in deltas] == made.case["deltas"]
    if "error" in made.case:
        assert type(end) is getattr(errors, made.case["error"])
    else:
        assert end == End(made.case["finish_reason"], made.case["usage"])
    if "usage_so_far" in made.case:
        assert deltas[0].usage == made.case["usage_so_far"]
