"""The soak of streams in small, so that what it checks is checked in every run."""

from tests.streams import stream_for


async def test_twenty_streams(database, database_url, microdao):
    tally = await stream_for(database, database_url, microdao, streams=20, calls=100)
    assert tally.faults == []
    assert tally.whole + tally.left == 100
    assert tally.left > 0
