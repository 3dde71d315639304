"""Memory finds what was asked in Ukrainian and Russian: inflected words, and other words for the same."""

import pytest

from bench.memory.pairs import LANGUAGES, hit, read_pairs
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.memory.memory import Memory, open_memory
from tests.memories import ask, index_all, new


@pytest.fixture
async def memory(settings, database: Database):
    outbox = Outbox(database, {})
    yield open_memory(settings, database, outbox)
    await outbox.close()


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_answer_is_among_the_first_three(memory: Memory, database: Database, microdao: str, language: str):
    pairs = read_pairs(language)
    assert len(pairs) >= 100
    for pair in pairs:
        await memory.store(new(microdao, pair.memory))
    await index_all(memory, database, microdao)

    missed = []
    for pair in pairs:
        found = await memory.query(ask(microdao, pair.query, k=3))
        if not hit(pair, [one.text for one in found], 3):
            missed.append(pair.id)

    assert len(missed) <= 0.1 * len(pairs), missed
