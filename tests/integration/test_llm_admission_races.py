"""Admission under concurrency, from four processes at once. ``make soak`` does each ten times in a row."""

import pytest

from tests import races


@pytest.mark.parametrize("race", [races.request_limit_race, races.budget_race, races.kill_race])
async def test_races(race, database, database_url):
    await race(database, database_url)
