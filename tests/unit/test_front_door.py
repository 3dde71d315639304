"""What does not reach a route."""

from collections.abc import MutableMapping
from typing import Any

from functions.chat.front_door import FrontDoor
from functions.chat.metrics import Metrics
from shared.policy.principal import Principal


async def test_who_leaves_in_the_middle_of_a_body_asks_for_nothing() -> None:
    """Not even where the body may be left out."""
    messages = iter([{"type": "http.request", "body": b'{"version"', "more_body": True}, {"type": "http.disconnect"}])
    reached, sent = [], []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        reached.append(scope)

    async def receive() -> MutableMapping[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def authenticate(secret: str) -> Principal:
        raise AssertionError("the path is open to everybody")

    scope = {"type": "http", "method": "POST", "path": "/healthz", "headers": [], "query_string": b""}
    door = FrontDoor(app, metrics=Metrics(), authenticate=authenticate, max_body_bytes=1000)
    await door(scope, receive, send)
    assert reached == []
    assert sent[0]["status"] == 400
