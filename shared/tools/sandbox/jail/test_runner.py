"""Runs a workspace's tests inside the jail: the entry point behind the tool ``run_tests``."""

import base64
import io
import os
import sys
import unittest
from pathlib import Path
from typing import Any

try:  # in what the fork server imports, so that each run finds it ready
    import pytest
    from _pytest.config import get_config

    get_config().pluginmanager  # noqa: B018 - imports pytest's own plugins
except ImportError:
    pytest = None  # type: ignore[assignment]

_OUTPUT_CHARS = 20_000
_KINDS = ("passed", "failed", "errors", "skipped")


class _Tail(io.StringIO):
    """Keeps the end of what is written."""

    def write(self, text: str) -> int:
        if self.tell() > 4 * _OUTPUT_CHARS:
            kept = self.getvalue()[-_OUTPUT_CHARS:]
            self.seek(0)
            self.truncate()
            super().write(kept)
        return super().write(text)


class Counts:
    """A pytest plugin that counts outcomes."""

    def __init__(self) -> None:
        self.of = dict.fromkeys(_KINDS, 0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Each test has a report of its set-up, its call and its tear-down."""
        if report.failed:
            self.of["failed" if report.when == "call" else "errors"] += 1
        elif report.skipped:
            self.of["skipped"] += 1
        elif report.when == "call":
            self.of["passed"] += 1

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported."""
        if report.failed:
            self.of["errors"] += 1


def run(args: dict[str, Any]) -> dict[str, Any]:
    """``files``: path → base64, ``path``: what to test. Counts by outcome and the end of the output."""
    for name, content in args["files"].items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    sys.path.insert(0, str(Path.cwd()))
    sys.dont_write_bytecode = True
    output = _Tail()
    sys.stdout = sys.stderr = output
    counts = _run_pytest(args["path"]) if pytest else _run_unittest(args["path"], output)
    return {**counts, "output": output.getvalue()[-_OUTPUT_CHARS:].replace(str(Path.cwd()), ".")}


def _run_pytest(path: str) -> dict[str, int]:
    counts = Counts()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-q", "-p", "no:cacheprovider", "--color=no", "--capture=sys", "--basetemp=.pytest-tmp", "--rootdir=."]
    pytest.main([*options, path], plugins=[counts])
    return counts.of


def _run_unittest(path: str, output: io.StringIO) -> dict[str, int]:
    loader = unittest.TestLoader()
    found = loader.loadTestsFromName(_module(path)) if path.endswith(".py") else loader.discover(path)
    result = unittest.TextTestRunner(stream=output).run(found)
    failed, errors, skipped = len(result.failures), len(result.errors), len(result.skipped)
    passed = result.testsRun - failed - errors - skipped
    return {"passed": max(passed, 0), "failed": failed, "errors": errors, "skipped": skipped}


def _module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")
