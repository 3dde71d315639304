"""What a refusal leaves behind."""

import json

import pytest

from shared.db.database import Database
from shared.errors import Unauthorized
from shared.observability import configure_logging
from shared.policy.decision import Resource
from shared.policy.policy import Policy
from shared.policy.principal import Principal


async def test_a_denial_logs_no_long_or_hidden_text(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "test")
    guest = Principal("key_1", "m", frozenset({"guest"}))
    with pytest.raises(Unauthorized, match=r"key\.write is permitted by no policy"):
        await Policy(database).authorize(guest, "key.write", Resource("Key", "\x1b[31m\u202e\n" + "x" * 5000, "m"))
    captured = capsys.readouterr()
    (line,) = (captured.out + captured.err).splitlines()
    assert json.loads(line)["resource"] == "[31m" + "x" * 196
