"""Each race of admission, ten times in a row."""

import pytest

from tests import races


@pytest.mark.parametrize("race", [races.request_limit_race, races.budget_race, races.kill_race])
@pytest.mark.parametrize("run", range(10))
async def test_races(race, run, database, database_url):
    await race(database, database_url)
