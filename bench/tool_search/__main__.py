"""``python -m bench.tool_search``: recall on both development sets, then latency. Vectors are kept in ``--folder``."""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.memory.stack import load_average
from bench.report import report
from bench.tool_search.catalogue import run, running_stack
from bench.tool_search.latency import latency
from bench.tool_search.quality import quality
from bench.tool_search.sets import read_sets

_NOTES = "percent; every setting as in the product, one for both sets"


def main() -> None:
    """Print both tables, or say which file is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".daarion") / "bench-tool-search")
    parser.add_argument("--tools", default="4076,50000", help="sizes of catalogues whose searches are timed")
    parser.add_argument("--only", choices=("quality", "latency"))
    options = parser.parse_args()
    try:
        sets = read_sets()
    except FileNotFoundError as error:
        sys.exit(f"skipped: {error} is neither in $DAARION_BENCH_DATA nor in ../shared/data")
    with tempfile.TemporaryDirectory() as scratch, running_stack(options.folder, Path(scratch)) as stack:
        names = {one.name: f"microdao:set-{number}" for number, one in enumerate(sets)}
        for one in sets:
            run(stack.add_tools(names[one.name], one.tools))
            run(stack.index(names[one.name]))
        if options.only != "latency":
            report("tool-search", [row for one in sets for row in quality(stack, one, names[one.name])], _NOTES)
        if options.only != "quality":
            seal, sizes = sets[0], map(int, options.tools.split(","))
            rows = [row for size in sizes for row in latency(stack, seal, names[seal.name], size)]
            notes = f"after embedding; {len(seal.requests)} requests; load {load_average()}"
            report("tool-search-latency", rows, notes)


if __name__ == "__main__":
    main()
