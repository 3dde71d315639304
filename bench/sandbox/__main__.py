"""p50 and p95 of a call per backend against ``python -I -S``, taken in turns so that a busy machine is busy for all."""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.report import report
from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail_backend import Jail, JailOptions
from shared.tools.sandbox.monty import Monty
from shared.tools.sandbox.port import Limits, Program, SandboxBackend

CODE = "def run(args):\n    return {'hello': args['name']}"
ARGS = {"name": "world"}
BAR_MS = 5.0

Call = Callable[[], Awaitable[Any]]


async def plain() -> Any:
    """One call without a sandbox: a cold interpreter."""
    code = f"import json, sys\n{CODE}\nprint(json.dumps(run(json.loads(sys.argv[1]))))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code, json.dumps(ARGS), stdout=asyncio.subprocess.PIPE, env={}
    )
    answer, _ = await process.communicate()
    return json.loads(answer)


def backends() -> list[SandboxBackend]:
    """Those that this machine can run."""
    found: list[SandboxBackend] = [Jail(), Jail(JailOptions(with_landlock=False), name="jail without Landlock")]
    bwrap = find_bwrap()
    return [*found, *([open_bwrap_jail(bwrap)] if bwrap else []), Monty()]


def caller(backend: SandboxBackend) -> Call:
    """A call of the same code in a sandbox."""

    async def call() -> Any:
        return (await backend.run(Program(code=CODE), ARGS, Limits())).value

    return call


async def timed(call: Call) -> float:
    """Milliseconds of one call, whose answer must be right."""
    started = time.perf_counter()
    answer = await call()
    took = (time.perf_counter() - started) * 1000
    if answer != {"hello": "world"}:
        raise SystemExit(f"a call answered {answer!r}")
    return took


async def measure(rounds: int) -> list[dict[str, Any]]:
    """A row per way to run the code."""
    opened = backends()
    calls: dict[str, Call] = {"python -I -S": plain, **{backend.name: caller(backend) for backend in opened}}
    first = {name: await timed(call) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(await timed(call))
    for backend in opened:
        await backend.close()
    plain_p50 = statistics.median(taken["python -I -S"])
    return [
        {
            "backend": name,
            "p50 ms": round(statistics.median(values), 2),
            "p95 ms": round(statistics.quantiles(values, n=20)[-1], 2),
            "first call ms": round(first[name]),
            "of python -I -S": f"{statistics.median(values) / plain_p50:.2f}",
        }
        for name, values in taken.items()
    ]


def main() -> None:
    """Print the table; say whether the jail keeps to its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rows = asyncio.run(measure(parser.parse_args().rounds))
    jail = next(row["p50 ms"] for row in rows if row["backend"] == "jail")
    verdict = "kept" if jail <= BAR_MS else "missed (other work on this machine counts in)"
    report("sandbox", rows, f"Bar: a call through the jail takes {BAR_MS:g} ms at most (p50): {verdict}.")


if __name__ == "__main__":
    main()
