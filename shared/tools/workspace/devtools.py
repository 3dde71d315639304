"""The built-in functions ``fs_read``, ``fs_write`` and ``run_tests``."""

import asyncio
import base64
import sysconfig
from pathlib import Path
from typing import Any

from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.ports import OuterExecutor
from shared.tools.sandbox.jail_backend import JailOptions, scrub
from shared.tools.sandbox.port import MB, Limits, Program, SandboxBackend, SandboxUnavailable
from shared.tools.sandbox.probe import ProbedSandbox, candidates
from shared.tools.sandbox.shares import Shares
from shared.tools.workspace.workspace import Workspace

DEVTOOLS = ("fs_read", "fs_write", "run_tests")

_RUNNER = "shared.tools.sandbox.jail.test_runner"
_WHAT_COUNTS = "where pytest is not installed, only methods of unittest.TestCase count"
_READ_BYTES = 200_000
_MARGIN_S = 0.5
_MAX_LISTED = 500
_RUNS_PER_MICRODAO = 1  # of two


def open_test_sandbox() -> ProbedSandbox:
    """A sandbox that can run tests: it also reads, and only reads, the packages installed beside us."""
    packages = (sysconfig.get_path("purelib"),)
    return ProbedSandbox(candidates(JailOptions(modules=(_RUNNER,), path=packages, readable=packages, max_parallel=2)))


class DevTools:
    """Each method is the executor of the tool of its name; all work in the workspace of the invocation's agent."""

    def __init__(self, root: Path, sandbox: SandboxBackend) -> None:
        self._root = root
        self._sandbox = sandbox
        self._shares = Shares(_RUNS_PER_MICRODAO)

    @property
    def functions(self) -> dict[str, OuterExecutor]:
        """The executors by the name that catalogue entries give in ``config.function``."""
        return {name: getattr(self, name) for name in DEVTOOLS}

    async def fs_read(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """A file's text, or the files of a folder. Raises ToolFailed."""
        return await asyncio.to_thread(_read, self._workspace(invocation), args.get("path", "."), args.get("offset", 0))

    async def fs_write(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """Make, replace or (content null) remove a file. Raises ToolFailed."""
        return await asyncio.to_thread(_write, self._workspace(invocation), args["path"], args["content"])

    async def run_tests(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """Run the workspace's tests on a copy of it in the sandbox: counts and output. Raises ToolFailed."""
        files = await asyncio.to_thread(_copy, self._workspace(invocation))
        request = {"files": files, "path": args.get("path", ".")}
        try:
            async with self._shares.held(invocation.microdao_id, _left_s(tool, invocation)):
                limits = _limits(_left_s(tool, invocation))
                result = await self._sandbox.run(Program(entrypoint=f"{_RUNNER}:run"), request, limits)
        except SandboxUnavailable as error:
            raise ToolFailed(f"tests cannot run: {error}") from error
        if result.status == "ok" and isinstance(result.value, dict):
            if not any(result.value[kind] for kind in ("passed", "failed", "errors", "skipped")):
                raise ToolFailed(f"no tests were found in {request['path']} ({_WHAT_COUNTS})")
            return {**result.value, "output": _without_paths(str(result.value.get("output", "")))}
        if result.killed_by == "wall":
            raise ToolFailed(f"the tests did not finish within {tool.timeout_ms} ms", code="tool_timeout")
        raise ToolFailed(f"the tests ended early: {result.error or result.killed_by}")

    async def close(self) -> None:
        """End the sandbox's processes."""
        await self._sandbox.close()

    def _workspace(self, invocation: Invocation) -> Workspace:
        return Workspace(self._root, invocation.microdao_id, invocation.agent_id)


def _left_s(tool: Tool, invocation: Invocation) -> float:
    left = min(tool.timeout_ms / 1000, invocation.deadline - asyncio.get_running_loop().time())
    return max(left - _MARGIN_S, 0.0)


def _limits(left_s: float) -> Limits:
    return Limits(wall_s=left_s, cpu_s=left_s, memory_mb=512, workdir_bytes=64 * MB, files=2_000)


def _read(workspace: Workspace, path: str, offset: int) -> dict[str, Any]:
    if workspace.is_folder(path):
        entries = workspace.list_files(path)
        listed = [{"path": entry.path, "bytes": entry.bytes} for entry in entries[:_MAX_LISTED]]
        return {"path": path, "files": listed, "truncated": len(entries) > _MAX_LISTED}
    content = workspace.read(path)
    try:
        content.decode()
    except UnicodeDecodeError:
        raise ToolFailed(f"{path} is not text in UTF-8") from None
    part = content[offset : offset + _READ_BYTES]
    is_cut = offset + len(part) < len(content)
    return {"path": path, "bytes": len(content), "content": part.decode(errors="ignore"), "truncated": is_cut}


def _write(workspace: Workspace, path: str, content: str | None) -> dict[str, Any]:
    if content is None:
        workspace.remove(path)
        return {"path": path, "removed": True}
    data = content.encode()
    workspace.write(path, data)
    return {"path": path, "bytes": len(data)}


def _without_paths(output: str) -> str:
    return scrub(output.replace(sysconfig.get_path("purelib"), "<packages>"))


def _copy(workspace: Workspace) -> dict[str, str]:
    entries = workspace.list_files()
    return {entry.path: base64.b64encode(workspace.read(entry.path)).decode() for entry in entries}
