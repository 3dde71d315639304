"""Start-up time, first answer and memory of the embedded stack: a first start, then warm ones, medians of several.

Run it as ``python -m bench.startup [ROUNDS]``.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.report import report
from tests.e2e.conftest import Stack, free_port, say


def measure(stack: Stack) -> dict[str, float]:
    """Start, ask once, look at the memory, stop."""
    started = stack.start()
    with stack.client() as client:
        began = time.monotonic()
        say(client, "What is 17 * 23?")
        answered = time.monotonic() - began
        began = time.monotonic()
        say(client, "What is 18 * 23?")
        again = time.monotonic() - began
    family = [process for process in stack.family() if process.is_running()]
    memory = sum(process.memory_full_info().pss for process in family if process.status() != psutil.STATUS_ZOMBIE)
    return {
        "ready_s": started,
        "first_answer_s": answered,
        "next_answer_s": again,
        "memory_mb": memory / 1e6,
        "stop_s": stack.stop(),
    }


def main(rounds: int) -> None:
    """One first start, then warm ones on the same folder."""
    with tempfile.TemporaryDirectory(prefix="daarion-bench-") as folder:
        stack = Stack(Path(folder) / "home", free_port())
        first = measure(stack)
        warm = [measure(stack) for _ in range(rounds)]
    rows: list[dict[str, Any]] = [{"start": "first", **_rounded(first)}]
    medians = {name: statistics.median(one[name] for one in warm) for name in first}
    rows.append({"start": f"warm, median of {rounds}", **_rounded(medians)})
    report("startup", rows, "memory: proportional set size of all processes together")


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 0 if name == "memory_mb" else 2) for name, value in figures.items()}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
