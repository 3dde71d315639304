"""The main job as a new user tries it: an agent that uses tools and remembers, behind OpenAI's API."""

import httpx
import pytest

from tests.e2e.conftest import Stack, events, eventually, say


def test_an_agent_creates_a_project_lists_it_and_remembers(member: httpx.Client) -> None:
    created = say(member, 'Create a project called "Solar Roof"')
    assert [tool["name"] for tool in created["daarion"]["tools"]] == ["project.create"]
    listed = say(member, "What projects are there?")
    assert "Solar Roof" in listed["choices"][0]["message"]["content"]
    assert [tool["name"] for tool in listed["daarion"]["tools"]] == ["projects.list"]

    say(member, "My favourite colour is turquoise.")

    def recalled() -> bool:
        answer = say(member, "What is my favourite colour?")
        return bool(answer["daarion"]["memories"]) and "turquoise" in answer["choices"][0]["message"]["content"]

    eventually(recalled)


def test_a_session_goes_on_under_its_id(member: httpx.Client) -> None:
    first = say(member, "Hello, who are you?")
    session_id = first["model"]
    assert session_id.startswith("sess_")
    second = say(member, "What is 6 * 7?", model=session_id)
    assert second["model"] == session_id
    assert "42" in second["choices"][0]["message"]["content"]
    state = member.get(f"/agents/{session_id}/state").json()
    assert state["state"] == "COMPLETED"
    assert [message["role"] for message in state["messages"]][:3] == ["user", "assistant", "user"]
    assert session_id in [one["session_id"] for one in member.get("/agents").json()["agents"]]


def test_a_client_that_resends_the_conversation_does_not_double_it(member: httpx.Client) -> None:
    first = say(member, "Hello there")
    reply = first["choices"][0]["message"]
    conversation = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": reply["content"]},
        {"role": "user", "content": "What is 2 + 2?"},
    ]
    say(member, "", model=first["model"], messages=conversation)
    messages = member.get(f"/agents/{first['model']}/state").json()["messages"]
    assert [one["content"] for one in messages if one["role"] == "user"] == ["Hello there", "What is 2 + 2?"]


def test_a_streamed_answer_has_the_documented_chunks(member: httpx.Client) -> None:
    body = {
        "model": "sofia",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "What is 12 * 12?"}],
    }
    response = member.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = events(response)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert "144" in text
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]].count("stop") == 1
    extras = chunks[-2]["daarion"]
    assert extras["session_id"] == chunks[0]["model"] == response.headers["x-daarion-session"]
    assert [tool["name"] for tool in extras["tools"]] == ["math"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_memory_is_found_by_meaning_once_indexed(member: httpx.Client) -> None:
    content = {"text": "The greenhouse is watered every second morning by Olena."}
    stored = member.post("/internal/agent-memory/store", json={"agent_id": "agent:sofia", "content": content})
    assert stored.status_code == 201
    question = {"agent_id": "agent:sofia", "query": "who takes care of irrigation of the plants?", "k": 3}

    def found() -> bool:
        memories = member.post("/internal/agent-memory/query", json=question).json()["memories"]
        return stored.json()["id"] in [memory["id"] for memory in memories]

    eventually(found)
    stats = member.get("/internal/agent-memory/agents/agent:sofia/stats").json()
    assert stats["items"]["mid_term"] >= 1


def test_a_flow_runs_through_the_state_machine_and_the_queue(member: httpx.Client) -> None:
    flow = {
        "input": "plan",
        "steps": [
            {"id": "sum", "type": "tool", "tool": "math", "args": {"expression": "6 * 7"}},
            {"id": "words", "type": "llm", "args": {"prompt": "Say hello", "model": "offline"}},
        ],
    }
    response = member.post("/internal/router/flows?wait=30", json=flow)
    assert response.status_code == 200, response.text
    done = response.json()
    assert done["state"] == "DONE", done
    assert [step["state"] for step in done["steps"]] == ["succeeded", "succeeded"]
    assert done["transitions"][:4] == ["INIT", "PLAN", "EXECUTE_STEP", "WAIT_TOOL"]
    assert done["transitions"][-1] == "DONE"
    assert member.get(f"/internal/router/flows/{done['flow_id']}").json()["state"] == "DONE"


@pytest.mark.parametrize(
    "step",
    [
        {"type": "tool", "tool": "no.such.tool", "args": {}},
        {"type": "dance"},
        {"type": "llm", "args": {"prompt": "hi", "model": "no-such-model"}},
    ],
)
def test_a_flow_with_an_unknown_part_is_refused_before_it_starts(member: httpx.Client, step: dict) -> None:
    before = len(member.get("/internal/router/flows").json()["flows"])
    response = member.post("/internal/router/flows", json={"input": "x", "steps": [step]})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]
    assert len(member.get("/internal/router/flows").json()["flows"]) == before


def test_usage_reaches_the_totals(member: httpx.Client) -> None:
    before = member.get("/internal/llm/usage").json()["total"]["requests"]
    say(member, "Hello", model="offline")

    def counted() -> bool:
        total = member.get("/internal/llm/usage?group_by=day,model").json()["total"]
        return total["requests"] > before and total["total_tokens"] > 0

    eventually(counted)


def test_another_tenant_sees_nothing(stack: Stack, member: httpx.Client, admin: httpx.Client) -> None:
    admin.post("/admin/microdaos", json={"microdao_id": "microdao:other", "name": "Other"}).raise_for_status()
    agent = {"agent_id": "agent:anna", "microdao_id": "microdao:other", "blueprint": "sofia"}
    admin.post("/admin/agents", json=agent).raise_for_status()
    key = admin.post("/admin/keys", json={"microdao_id": "microdao:other", "name": "theirs"}).json()["key"]
    ours = say(member, 'Create a project called "Ours Alone"')
    flow = member.post(
        "/internal/router/flows", json={"input": "x", "steps": [{"type": "llm", "args": {"prompt": "hi"}}]}
    )
    with stack.client(key) as other:
        assert "Ours Alone" not in say(other, "What projects are there?")["choices"][0]["message"]["content"]
        assert other.get(f"/agents/{ours['model']}/state").status_code == 404
        assert other.get(f"/internal/router/flows/{flow.json()['flow_id']}").status_code == 404
        continued = {"model": ours["model"], "messages": [{"role": "user", "content": "hi"}]}
        assert other.post("/v1/chat/completions", json=continued).status_code == 404
        foreign = {"agent_id": "agent:sofia", "microdao_id": "microdao:daarion", "query": "x"}
        assert other.post("/internal/agent-memory/query", json=foreign).status_code == 404
        assert other.get("/internal/llm/usage?microdao_id=microdao:daarion").status_code == 404


def test_a_revoked_key_is_refused_at_once(stack: Stack, admin: httpx.Client) -> None:
    made = admin.post("/admin/keys", json={"name": "short-lived"}).json()
    with stack.client(made["key"]) as client:
        assert client.get("/v1/models").status_code == 200
        admin.delete(f"/admin/keys/{made['id']}").raise_for_status()
        assert client.get("/v1/models").status_code == 401


def test_a_member_may_not_administer(member: httpx.Client) -> None:
    response = member.post("/admin/keys", json={"name": "mine"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "unauthorized"
    assert member.get("/metrics").status_code == 403


def test_health_needs_no_key(stack: Stack, admin: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert httpx.get(f"{stack.url}{path}", timeout=60).status_code == 200, path
    assert "daarion_http_requests_total" in admin.get("/metrics").text
