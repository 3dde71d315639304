"""The ``monty`` backend: short glue code that a model wrote, in an interpreter that has no system to break out to.

It is a subset of Python (no inheritance, no ``yield``, few modules) and costs a millisecond or two a run.
"""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from shared.tools.sandbox.plain import is_plain
from shared.tools.sandbox.port import (
    MB,
    HostCall,
    HostCallRefused,
    KilledBy,
    Limits,
    Program,
    SandboxResult,
    SandboxUnavailable,
)

if TYPE_CHECKING:
    from pydantic_monty import AsyncFunctionSnapshot, AsyncMonty, AsyncMontySession, CollectStreams, MontyError

_CALL = "\nimport json as _json\n_json.dumps(run(args), allow_nan=False)[:{most}]\n"
"""The interpreter writes the JSON, within its limits: a list of few objects may be text without end."""

_RUNS_PER_WORKER = 1_000
_GRACE_S = 0.1
_MAX_ASKED = MB


class Monty:
    """A pool of workers, started with the first run."""

    name = "monty"

    def __init__(self, max_processes: int = 8) -> None:
        self._max_processes = max_processes
        self._pool: AsyncMonty | None = None
        self._starting = asyncio.Lock()

    async def run(
        self, program: Program, args: Any, limits: Limits, host_call: HostCall | None = None
    ) -> SandboxResult:
        """Run a program; ``http_request`` is a plain function in it, too. Raises SandboxUnavailable."""
        if program.entrypoint:
            raise SandboxUnavailable("an entry point needs a whole Python; monty runs code only")
        pool = await self._live_pool()
        from pydantic_monty import CollectStreams, MontyError

        started = asyncio.get_running_loop().time()
        printed = CollectStreams(max_bytes=limits.output_bytes)
        try:
            async with asyncio.timeout(limits.wall_s + _GRACE_S):
                async with pool.checkout(script_name="tool.py", limits=_resource_limits(limits)) as session:
                    value = await _feed(session, program.code, args, limits, printed, host_call)
            result = _checked(value, limits)
        except TimeoutError:
            result = SandboxResult(status="killed", killed_by="wall")
        except MontyError as error:
            result = _failure(error, limits, program.code)
        ms = round((asyncio.get_running_loop().time() - started) * 1000)
        return SandboxResult(
            status=result.status,
            value=result.value,
            stdout="".join(text for _, text in printed.output),
            ms=ms,
            killed_by=result.killed_by,
            error=result.error,
        )

    async def close(self) -> None:
        """End the workers."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _live_pool(self) -> "AsyncMonty":
        async with self._starting:
            if self._pool is None:
                self._pool = await _start_pool(self._max_processes)
            return self._pool


async def _start_pool(max_processes: int) -> "AsyncMonty":
    try:
        from pydantic_monty import AsyncMonty

        pool = AsyncMonty(max_processes=max_processes, max_checkouts_per_worker=_RUNS_PER_WORKER)
        return await pool.__aenter__()
    except Exception as error:
        raise SandboxUnavailable(f"monty does not start: {type(error).__name__}: {error}") from error


def _resource_limits(limits: Limits) -> Any:
    return {
        "max_feed_duration_secs": min(limits.cpu_s, limits.wall_s),
        "max_total_sleep_secs": limits.wall_s,
        "max_memory": limits.memory_mb * MB,
    }


async def _feed(
    session: "AsyncMontySession",
    code: str,
    args: Any,
    limits: Limits,
    printed: "CollectStreams",
    host_call: HostCall | None,
) -> Any:
    """The value of ``run(args)`` as JSON; what the program asks of the host is answered on the way."""
    from pydantic_monty import AsyncFunctionSnapshot, MontyComplete

    state = await session.feed_start(
        code + _CALL.format(most=limits.result_bytes + 1),
        inputs={"args": args},
        external_lookup={"http_request": _never_called},
        print_callback=printed,
    )
    while not isinstance(state, MontyComplete):
        if isinstance(state, AsyncFunctionSnapshot) and state.function_name == "http_request":
            state = await state.resume(await _answer(state, host_call))
        else:
            state = await state.resume_auto()
    return state.output


def _never_called(*_: object, **__: object) -> None:
    """Makes the name known; each call of it is answered by ``_answer``."""
    raise HostCallRefused("http_request was called past the host")


async def _answer(call: "AsyncFunctionSnapshot", host_call: HostCall | None) -> Any:
    asked = {**dict(zip(("method", "url", "headers", "json"), call.args, strict=False)), **call.kwargs}
    try:
        if host_call is None:
            raise HostCallRefused("this tool may not reach the network")
        if not is_plain(asked, _MAX_ASKED):
            raise HostCallRefused(f"a request must be JSON, of {_MAX_ASKED:,} bytes at most")
        return {"return_value": await host_call("http_request", asked)}
    except HostCallRefused as error:
        return {"exc_type": "RuntimeError", "message": str(error)}


def _checked(text: Any, limits: Limits) -> SandboxResult:
    """The value whose JSON this is; a program that says something else in its place is refused."""
    if not isinstance(text, str):
        return SandboxResult(status="error", error="TypeError: the result is no JSON")
    if len(text) > limits.result_bytes:
        return SandboxResult(status="killed", killed_by="result")
    try:
        return SandboxResult(status="ok", value=json.loads(text))
    except (ValueError, RecursionError) as error:
        return SandboxResult(status="error", error=f"{type(error).__name__}: {str(error)[:300]}")


def _failure(error: "MontyError", limits: Limits, code: str) -> SandboxResult:
    from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

    if isinstance(error, MontyCrashedError):
        return SandboxResult(status="crashed", error="the interpreter ended without an answer")
    kind, message = type(error.exception()).__name__, str(error.exception())
    if killer := _killer(kind, message, limits):
        return SandboxResult(status="killed", killed_by=killer, error=f"{kind}: {message[:300]}")
    frames = error.traceback() if isinstance(error, MontyRuntimeError | MontySyntaxError) else []
    last = code.count("\n") + 1  # what follows is our call
    if frames and frames[-1].line > last and message == "name 'run' is not defined":
        return SandboxResult(status="error", error=f"{kind}: the code must define a function run(args)")
    lines = [frame.line for frame in frames if frame.line <= last]
    where = f" (line {lines[-1]})" if lines else ""
    return SandboxResult(status="error", error=f"{kind}: {message[:2_000]}{where}")


def _killer(kind: str, message: str, limits: Limits) -> KilledBy | None:
    """Monty tells of its limits by exceptions, which its programs cannot catch."""
    if "limit exceeded" not in message:
        return None
    if kind == "MemoryError":
        return "output" if message.endswith(f"> {limits.output_bytes} bytes") else "memory"
    return "wall" if kind == "TimeoutError" else None
