"""The idempotency keys of what a sandboxed tool asks of the host."""

from shared.tools.model import Invocation, Tool
from shared.tools.sandbox.broker import BrokeredAnswer, BrokeredRequest, HostCalls

TOOL = Tool(
    id="tool_1",
    name="orders",
    version=1,
    description="Orders.",
    parameters={"type": "object"},
    risk="C",
    executor="python",
    active=True,
    timeout_ms=1_000,
    idempotent=True,
    config={"hosts": ["a.example"]},
)


class Recorder:
    """A way out that notes what would leave."""

    def __init__(self) -> None:
        self.sent: list[BrokeredRequest] = []

    async def send(self, request: BrokeredRequest, tool: Tool, invocation: Invocation) -> BrokeredAnswer:
        self.sent.append(request)
        return BrokeredAnswer(status=200, headers={}, body=None)


async def keys_of(bodies: list[object], execution_id: str = "exec_1") -> list[str]:
    recorder = Recorder()
    invocation = Invocation(execution_id=execution_id, microdao_id="microdao:a", agent_id="agent:a")
    calls = HostCalls(recorder, TOOL, invocation)
    for body in bodies:
        await calls("http_request", {"method": "post", "url": "https://a.example/orders", "json": body})
    return [request.idempotency_key for request in recorder.sent]


async def test_a_request_has_the_same_key_in_each_attempt_whatever_came_before_it():
    first = await keys_of([{"a": 1, "b": 2}, "two", "three"])
    second = await keys_of(["three", {"b": 2, "a": 1}, "two"])
    assert (second[1], second[2], second[0]) == tuple(first)
    assert len(set(first)) == 3


async def test_the_same_request_again_is_another():
    first, again = await keys_of(["one", "one"])
    assert first != again


async def test_another_execution_has_other_keys():
    assert await keys_of(["one"]) != await keys_of(["one"], "exec_2")
