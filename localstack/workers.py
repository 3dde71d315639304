"""The queue functions of template.yaml in one process, each under its folder's name, with their dispatcher beside them.

Run it as ``python -m localstack.workers PORT``.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import uvicorn

from localstack.dispatcher import dispatch
from localstack.process import LOOPBACK
from localstack.wiring import Wiring, read_wiring
from shared.cloud.serve import Receive, Scope, Send
from shared.observability import configure_logging
from shared.settings import current_settings

AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_DRAIN_S = 2.0
_THREADS = 64  # every waiting receive and every AWS call holds one


class FunctionHost:
    """An ASGI app that serves ``/tool_executor/events`` with the app of functions/tool_executor, and so on."""

    def __init__(self, apps: Mapping[str, AsgiApp]) -> None:
        self._apps = dict(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path = str(scope["path"])
        if path == "/healthz":
            await _answer(send, 200)
            return
        folder, _, rest = path.removeprefix("/").partition("/")
        if app := self._apps.get(folder):
            await app({**scope, "path": f"/{rest}"}, receive, send)
        else:
            await _answer(send, 404)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        for stage in ("startup", "shutdown"):
            await receive()
            await asyncio.gather(*(_tell(app, stage) for app in self._apps.values()))
            await send({"type": f"lifespan.{stage}.complete"})


async def _tell(app: AsgiApp, stage: str) -> None:
    """Send one lifespan message to an app and wait for its answer."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": f"lifespan.{stage}"})
    answered = asyncio.Event()

    async def send(message: Any) -> None:
        answered.set()

    listening = asyncio.ensure_future(app({"type": "lifespan"}, messages.get, send))
    waiting = asyncio.ensure_future(answered.wait())
    await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    waiting.cancel()


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


class _Server(uvicorn.Server):
    """Leaves the signals to :func:`serve`, which stops the dispatcher first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def load_functions(wiring: Wiring) -> dict[str, AsgiApp]:
    """The app of every function that something in the wiring triggers, by folder."""
    triggered = {one.function for one in wiring.event_sources} | {one.function for one in wiring.schedules}
    apps = {}
    for function in wiring.functions:
        if function.name in triggered:
            module, _, attribute = function.app.partition(":")
            apps[function.folder] = getattr(import_module(module), attribute)
    return apps


async def serve(port: int, wiring: Wiring, apps: Mapping[str, AsgiApp]) -> None:
    """Host the functions and dispatch to them until SIGTERM; then let the batches under way finish for 2 s."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="aws"))
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    config = uvicorn.Config(
        FunctionHost(apps),
        LOOPBACK,
        port,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    dispatching = asyncio.create_task(dispatch(wiring, f"http://{LOOPBACK}:{port}", stop))
    await asyncio.wait({serving, dispatching}, return_when=asyncio.FIRST_COMPLETED)
    with suppress(TimeoutError):
        await asyncio.wait_for(dispatching, _DRAIN_S)
    server.should_exit = True
    await serving


def main() -> None:
    """Serve until told to stop."""
    configure_logging(current_settings().log_level, "workers")
    wiring = read_wiring()
    asyncio.run(serve(int(sys.argv[1]), wiring, load_functions(wiring)))


if __name__ == "__main__":
    main()
