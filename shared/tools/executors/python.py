"""The ``python`` executor: code of a microDAO, or an entry point that the operator allows, in the sandbox."""

import asyncio
from typing import Any

from shared.tools.model import Invocation, Tool, ToolFailed, ToolUncertain
from shared.tools.sandbox.broker import Broker, HostCalls
from shared.tools.sandbox.port import Limits, Program, SandboxBackend, SandboxResult, SandboxUnavailable
from shared.tools.sandbox.shares import Shares

_MAX_MEMORY_MB = 512
_RUNS_PER_MICRODAO = 3  # of the sandbox's eight
_MARGIN_S = 0.25
"""Kept of the deadline to say how it went."""
_LATE_S = 0.1
"""How long a sandbox may go on beyond its time before it is given up: within the margin."""
_MAX_MESSAGE = 2_000
_PRINTED_TAIL = 500
_CAUSES = {
    "cpu": "it used more processor time than a tool may",
    "memory": "it used more memory than a tool may",
    "output": "it printed more than a tool may",
    "result": "its result is larger than a tool's may be",
    "disk": "it wrote more than a tool may",
    "files": "it made more files than a tool may",
    "threads": "it started more threads than a tool may",
}


class PythonExecutor:
    """Runs a tool's ``config.code`` or ``config.entrypoint``; ``config.runtime: monty`` takes the light interpreter."""

    def __init__(
        self, sandbox: SandboxBackend, broker: Broker | None = None, monty: SandboxBackend | None = None
    ) -> None:
        self._backends = {"python": sandbox, **({"monty": monty} if monty else {})}
        self._broker = broker
        self._shares = Shares(_RUNS_PER_MICRODAO)

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The value of ``run(args)``. Raises ToolFailed; ToolUncertain after a request of unknown outcome."""
        return (await self.run(tool, args, invocation)).value

    async def run(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> SandboxResult:
        """The same, with what it printed."""
        backend = self._backends.get(tool.config.get("runtime", "python"))
        if backend is None:
            raise ToolFailed(f"the runtime must be one of {', '.join(self._backends)}")
        program = _program(tool)
        calls = HostCalls(self._broker, tool, invocation) if self._broker and tool.config.get("hosts") else None
        limits = _limits(tool, invocation)
        try:
            # It may have to be started first, which takes its time.
            async with (
                asyncio.timeout(limits.wall_s + _LATE_S),
                self._shares.held(invocation.microdao_id, limits.wall_s),
            ):
                result = await backend.run(program, args, limits, calls)
        except TimeoutError:
            result = SandboxResult(status="killed", killed_by="wall")
        except SandboxUnavailable as error:
            raise ToolFailed(f"{tool.name} cannot run: {error}") from error
        if result.status == "ok":
            return result
        raise _failure(tool, result, calls)


def _program(tool: Tool) -> Program:
    code, entrypoint = tool.config.get("code", ""), tool.config.get("entrypoint", "")
    if bool(code) == bool(entrypoint):
        raise ToolFailed(f"{tool.name} must have either code or an entrypoint")
    return Program(code=code, entrypoint=entrypoint)


def _limits(tool: Tool, invocation: Invocation) -> Limits:
    left = min(tool.timeout_ms / 1000, invocation.deadline - asyncio.get_running_loop().time())
    wall_s = max(0.0, left - min(_MARGIN_S, left / 4))
    memory_mb = min(int(tool.config.get("memory_mb", Limits().memory_mb)), _MAX_MEMORY_MB)
    return Limits(wall_s=wall_s, cpu_s=wall_s, memory_mb=memory_mb)


def _failure(tool: Tool, result: SandboxResult, calls: HostCalls | None) -> ToolFailed:
    """A run that was cut short after it asked the host to act, or in the middle of that, may have had its effect."""
    is_cut = result.status in ("killed", "crashed")
    is_late = result.killed_by == "wall"
    message = f"{tool.name} did not finish within {tool.timeout_ms} ms" if is_late else _message(tool, result)
    code = "tool_timeout" if is_late else "tool_failed"
    if calls is not None and (calls.is_uncertain or (is_cut and calls.may_have_acted)):
        return ToolUncertain(message, code=code)
    return ToolFailed(message, code=code)


def _message(tool: Tool, result: SandboxResult) -> str:
    said = _CAUSES.get(result.killed_by or "", result.error)[:_MAX_MESSAGE]
    printed = result.stdout.strip()[-_PRINTED_TAIL:]
    return f"{tool.name} failed: {said}" + (f"; it printed: {printed}" if printed else "")
