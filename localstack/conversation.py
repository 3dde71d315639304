"""``daarion chat``: a conversation in the terminal, over the same API that every client uses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import orjson

from localstack.home import StartError
from localstack.seed import MEMBER_ROLES, MICRODAO
from shared.bootstrap import Services
from shared.settings import Settings

_SESSION_HEADER = "x-daarion-session"


async def converse(message: str, model: str, api_url: str, settings: Settings) -> None:
    """Say one message, or read messages until end of input. The session goes on from message to message.

    Raises StartError when the API cannot be reached or refuses.
    """
    async with _key(settings) as key, aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        if message:
            await _say(session, api_url, model, message)
            return
        print(f"Talking to {model}. An empty line or Ctrl-D ends it.")
        while line := await _read_line():
            model = await _say(session, api_url, model, line)


@asynccontextmanager
async def _key(settings: Settings) -> AsyncIterator[str]:
    """The key of the environment, or one that lives as long as this conversation."""
    if settings.api_key:
        yield settings.api_key
        return
    if not settings.database_url:
        raise StartError("set DAARION_API_KEY to talk to an API that is not the stack of this folder")
    services = Services(settings)
    key = await services.keys.create(MICRODAO, MEMBER_ROLES, "daarion chat")
    try:
        yield key.secret
    finally:
        await services.keys.revoke(MICRODAO, key.id)
        await services.close()


async def _say(session: aiohttp.ClientSession, api_url: str, model: str, text: str) -> str:
    """Print the answer as it comes; what to name as ``model`` to go on in the same session."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    try:
        async with session.post(f"{api_url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                raise StartError(_refusal(await response.read(), response.status))
            async for chunk in _chunks(response):
                _show(chunk)
            print()
            return response.headers.get(_SESSION_HEADER, model)
    except aiohttp.ClientError as error:
        raise StartError(f"{api_url} cannot be reached ({type(error).__name__}); is the stack up?") from error


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The decoded data lines of a server-sent event stream."""
    async for line in response.content:
        data = line.removeprefix(b"data: ").strip()
        if line.startswith(b"data: ") and data != b"[DONE]":
            yield orjson.loads(data)


def _show(chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise StartError(chunk["error"]["message"])
    for choice in chunk.get("choices", []):
        print(choice.get("delta", {}).get("content") or "", end="", flush=True)
    tools = [tool["name"] for tool in (chunk.get("daarion") or {}).get("tools", [])]
    if tools:
        print(f"\n[tools: {', '.join(tools)}]", end="", flush=True)


def _refusal(body: bytes, status: int) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(orjson.loads(body)["error"]["message"])
    return f"the API answered {status}"


async def _read_line() -> str:
    with suppress(EOFError):
        return (await asyncio.to_thread(input, "\n> ")).strip()
    return ""
