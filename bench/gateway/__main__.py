"""Run it as ``python -m bench.gateway [--litellm PYTHON] [--rounds N]``.

Every round drives each subject in turn, so that a machine that slows down slows all; a figure is the median over the
rounds. CPU time is the subject's own process tree, from the operating system's accounts, and is steadier than latency.
LiteLLM runs without a database (its engine is a download), so it does less: no keys, limits, budgets or ledger.
"""

import argparse
import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gateway.load import Target, drive
from bench.gateway.subjects import MODEL, Subject, litellm, ours, passthrough, upstream
from bench.report import report

# connections → requests a round
LOADS = {1: 60, 16: 240, 64: 256}
STREAMS = 64
STREAM_CONNECTIONS = 8


@dataclass(slots=True)
class Samples:
    """One subject's figures, one value a round each."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep a round's value."""
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(self.values[name])


async def measure_round(subject: Subject, samples: Samples) -> None:
    """Whole answers at each concurrency, then streams."""
    for connections, requests in LOADS.items():
        cpu, beside = subject.cpu_s(), subject.beside_cpu_s()
        latencies = await drive(subject.target, connections=connections, requests=requests)
        samples.add(f"p50 c={connections}", latencies.p50)
        samples.add(f"p99 c={connections}", latencies.p99)
        samples.add(f"cpu c={connections}", (subject.cpu_s() - cpu) * 1000 / requests)
        samples.add(f"postgres c={connections}", (subject.beside_cpu_s() - beside) * 1000 / requests)
    cpu = subject.cpu_s()
    await drive(subject.target, connections=STREAM_CONNECTIONS, requests=STREAMS, stream=True)
    samples.add("cpu stream", (subject.cpu_s() - cpu) * 1000 / STREAMS)


async def run(subjects: list[Subject], direct: Target, rounds: int) -> dict[str, Samples]:
    """Warm every subject, then measure in turn."""
    everyone = [*subjects, Subject("upstream, direct", direct)]
    for subject in everyone:
        await drive(subject.target, connections=4, requests=50)
        await drive(subject.target, connections=4, requests=8, stream=True)
    samples = {subject.name: Samples() for subject in everyone}
    for _ in range(rounds):
        for subject in everyone:
            await measure_round(subject, samples[subject.name])
    return samples


def rows_of(subjects: list[Subject], samples: dict[str, Samples]) -> list[dict[str, Any]]:
    """A row a subject: CPU milliseconds, added latency over the direct upstream, memory, cold start."""
    direct = samples["upstream, direct"]
    rows = []
    for subject in subjects:
        own = samples[subject.name]
        row: dict[str, Any] = {"subject": subject.name}
        for connections in LOADS:
            row[f"CPU-ms/request c={connections}"] = round(own.median(f"cpu c={connections}"), 2)
        row["Postgres CPU-ms/request c=16"] = round(own.median("postgres c=16"), 2)
        row["CPU-ms/64-chunk stream"] = round(own.median("cpu stream"), 2)
        for connections in LOADS:
            p50 = own.median(f"p50 c={connections}") - direct.median(f"p50 c={connections}")
            p99 = own.median(f"p99 c={connections}") - direct.median(f"p99 c={connections}")
            row[f"added ms p50/p99 c={connections}"] = f"{p50:.1f} / {p99:.1f}"
        row["resident MB"] = round(subject.memory_mb())
        row["ready CPU-s / wall s"] = f"{subject.ready_cpu_s:.1f} / {subject.ready_s:.1f}"
        rows.append(row)
    return rows


def ratios(rows: list[dict[str, Any]]) -> str:
    """LiteLLM's figures over ours."""
    by_name = {row["subject"]: row for row in rows}
    mine, theirs = by_name.get("DAARION, everything on"), by_name.get("LiteLLM, no database")
    if not mine or not theirs:
        return ""
    names = [name for name in mine if name.startswith("CPU-ms") or name == "resident MB"]
    parts = [f"{name} {theirs[name] / mine[name]:.1f}x" for name in names if mine[name]]
    return "LiteLLM over DAARION: " + ", ".join(parts)


def main() -> None:
    """Start everything, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", type=Path, help="the Python of a virtual environment with litellm[proxy]")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="daarion-bench-")))
        url = running.enter_context(upstream())
        subjects = [running.enter_context(passthrough(url)), running.enter_context(ours(url, folder))]
        if arguments.litellm:
            subjects.append(running.enter_context(litellm(arguments.litellm, url, folder)))
        samples = asyncio.run(run(subjects, Target(url, "none", MODEL), arguments.rounds))
        rows = rows_of(subjects, samples)
        report("gateway", rows, ratios(rows))


if __name__ == "__main__":
    main()
