"""A hundred streams at once, for a minute."""

import pytest

from tests.streams import stream_for


@pytest.mark.timeout(300)
async def test_a_hundred_streams(database, database_url, microdao):
    tally = await stream_for(database, database_url, microdao, streams=100, seconds=60)
    assert tally.faults == []
    assert tally.whole > 1000
    assert tally.growth() < 1.05
