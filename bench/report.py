"""How every benchmark reports: a table on the terminal, the same figures as JSON, and the machine they are from."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """``2 × AMD EPYC 7B13, Linux 6.1, Python 3.11.7``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def report(name: str, rows: list[dict[str, Any]], notes: str = "") -> None:
    """Print the rows as a Markdown table and write them to ``bench/results/<name>.json``."""
    columns = list(rows[0])
    print(f"\n{name} · {datetime.now(UTC):%Y-%m-%d} · {machine()}")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    if notes:
        print(notes)
    RESULTS.mkdir(exist_ok=True)
    document = {"name": name, "at": datetime.now(UTC).isoformat(), "machine": machine(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
