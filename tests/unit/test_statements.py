"""What no SQL of ours says."""

import re

from shared.settings import ROOT

SOURCES = [path for kind in ("*.py", "*.sql") for path in sorted((ROOT / "shared").rglob(kind))]

# Postgres may plan such a batch to be picked again for each row of the table, each time past the rows that the last one
# locked: then the limit bounds nothing. ``ARRAY(SELECT …)`` and ``WITH … AS MATERIALIZED`` are picked once.
PICKED_AGAIN = re.compile(r"\bIN \( ?SELECT ((?!\bIN \().)+ LIMIT ((?!\bIN \().)+ FOR (NO KEY )?UPDATE")


def statements(source: str) -> list[str]:
    """Pieces of the source, each on one line, as if its strings were one."""
    return [re.sub(r'["\s]+', " ", piece) for piece in re.split(r'\n\n|"""', source)]


def picked_again(source: str) -> list[str]:
    return [statement for statement in statements(source) if PICKED_AGAIN.search(statement)]


def test_a_batch_is_picked_once() -> None:
    assert not [(path, found) for path in SOURCES if (found := picked_again(path.read_text(encoding="utf-8")))]


def test_one_that_is_picked_again_is_seen() -> None:
    assert picked_again('"DELETE FROM t WHERE id IN ("\n    " SELECT id FROM t ORDER BY id LIMIT %s FOR UPDATE)"')
