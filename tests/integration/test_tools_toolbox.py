"""The catalogue, grants, refusals and the audit log, on a real database."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import (
    ConfidentialDenied,
    InvalidArgs,
    InvalidRequest,
    NotFound,
    Unauthorized,
)
from shared.policy.policy import Policy
from shared.policy.principal import Principal
from shared.tools.model import ToolCallRequest
from shared.tools.toolbox import Toolbox

SOFIA = "agent:sofia"


@pytest.fixture
async def toolbox(database: Database, microdao: str, policy: Policy) -> Toolbox:
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy)
    await toolbox.seed(microdao, SOFIA)
    return toolbox


@pytest.fixture
def member(microdao: str) -> Principal:
    return Principal("key_member", microdao, frozenset({"member"}))


@pytest.fixture
def create(microdao: str) -> ToolCallRequest:
    return ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, "key_member")


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def test_seed_fills_the_catalogue_once_and_keeps_what_an_admin_changed(
    database: Database, toolbox: Toolbox, microdao: str
):
    before = await toolbox.list_all(microdao, "", 100)
    await toolbox.set_grants(microdao, SOFIA, [], ["math"])
    await asyncio.gather(*(toolbox.seed(microdao, SOFIA) for _ in range(3)))
    assert await toolbox.list_all(microdao, "", 100) == before
    assert "math" not in {tool.name for tool in await toolbox.list_for_agent(microdao, SOFIA)}
    pages = await rows(database, microdao, "SELECT title FROM document")
    assert len({page["title"] for page in pages}) == len(pages) >= 3


async def test_seed_without_an_agent_fills_the_catalogue_and_grants_nothing(
    database: Database, microdao: str, policy: Policy
):
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy)
    await toolbox.seed(microdao)
    assert len(await toolbox.list_all(microdao, "", 100)) >= 5
    assert await toolbox.list_for_agent(microdao, SOFIA) == []


async def test_seed_of_an_unknown_agent_is_refused(toolbox: Toolbox, microdao: str):
    with pytest.raises(NotFound, match="agent:nobody"):
        await toolbox.seed(microdao, "agent:nobody")


async def test_the_catalogue_is_paged_by_name(toolbox: Toolbox, microdao: str):
    names = [tool.name for tool in await toolbox.list_all(microdao, "", 100)]
    assert names == sorted(names)
    assert {"math", "project.create", "projects.list", "search_docs", "task.create"} <= set(names)
    assert [tool.name for tool in await toolbox.list_all(microdao, names[1], 2)] == names[2:4]


async def test_find_by_name_id_and_alias(toolbox: Toolbox, microdao: str):
    tool = await toolbox.find(microdao, "project.create")
    assert await toolbox.find(microdao, tool.id) == tool
    assert await toolbox.find(microdao, "create_project") == tool


async def test_an_unknown_tool_is_answered_with_near_names(toolbox: Toolbox, microdao: str):
    with pytest.raises(NotFound, match=r"did you mean project\.create"):
        await toolbox.find(microdao, "project.creat")
    with pytest.raises(NotFound, match=r"tools are: .*math, "):
        await toolbox.find(microdao, "zzz" * 1000)
    with pytest.raises(InvalidRequest):
        await toolbox.find(microdao, "ma\0th")


async def test_grants(toolbox: Toolbox, microdao: str):
    await toolbox.set_grants(microdao, SOFIA, [], ["create_project", "math"])
    permissions = {name: (granted, reason) for name, granted, reason in await toolbox.permissions(microdao, SOFIA)}
    assert permissions["math"] == (False, "not granted")
    assert permissions["project.create"] == (False, "not granted")
    assert permissions["search_docs"] == (True, "granted")
    await toolbox.set_grants(microdao, SOFIA, ["math"], [])
    await toolbox.set_grants(microdao, SOFIA, ["math"], [])
    assert "math" in {tool.name for tool in await toolbox.list_for_agent(microdao, SOFIA)}


async def test_a_change_of_grants_is_all_or_nothing(toolbox: Toolbox, microdao: str):
    before = await toolbox.permissions(microdao, SOFIA)
    with pytest.raises(NotFound):
        await toolbox.set_grants(microdao, SOFIA, [], ["math", "unheard"])
    with pytest.raises(InvalidRequest):
        await toolbox.set_grants(microdao, SOFIA, ["math"], ["math"])
    with pytest.raises(NotFound):
        await toolbox.set_grants(microdao, "agent:nobody", ["math"], [])
    assert await toolbox.permissions(microdao, SOFIA) == before


async def test_unknown_agent(toolbox: Toolbox, microdao: str):
    with pytest.raises(NotFound, match="agent:nobody"):
        await toolbox.list_for_agent(microdao, "agent:nobody")
    with pytest.raises(NotFound, match="agent:nobody"):
        await toolbox.permissions(microdao, "agent:nobody")


@pytest.mark.parametrize("path", ["execute", "submit", "enqueue"])
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"tool": "unheard"}, NotFound),
        ({"tool": "mat\0h"}, InvalidRequest),
        ({"agent_id": "agent:nobody"}, NotFound),
        ({"tool": "math", "args": {"expression": "1"}}, Unauthorized),
        ({"args": {}}, InvalidArgs),
        ({"args": {"name": " "}}, InvalidArgs),
        ({"args": {"name": "x\0"}}, InvalidArgs),
        ({"args": {"name": "x\ud800"}}, InvalidArgs),
        ({"args": {"name": "x", "colour": "red"}}, InvalidArgs),
        ({"microdao_id": "microdao:another"}, NotFound),
        ({"idempotency_key": "k" * 3000}, InvalidRequest),
    ],
)
async def test_refusals_leave_no_row(
    database: Database,
    toolbox: Toolbox,
    member: Principal,
    create: ToolCallRequest,
    microdao: str,
    path: str,
    change: dict[str, Any],
    refusal: type[Exception],
):
    await toolbox.set_grants(microdao, SOFIA, [], ["math"])
    with pytest.raises(refusal):
        await getattr(toolbox, path)(member, replace(create, **change))
    for table in ("tool_execution", "usage_event", "outbox WHERE queue <> 'memory'", "project"):
        assert await rows(database, microdao, f"SELECT 1 FROM {table}") == []


async def test_a_guest_may_not_call(toolbox: Toolbox, create: ToolCallRequest, microdao: str):
    with pytest.raises(Unauthorized, match=r"tool\.invoke"):
        await toolbox.execute(Principal("key_guest", microdao, frozenset({"guest"})), create)


async def test_an_operator_may_call_in_any_microdao(toolbox: Toolbox, create: ToolCallRequest):
    operator = Principal("key_operator", "microdao:platform", frozenset({"operator"}))
    assert (await toolbox.execute(operator, create)).status == "succeeded"


async def test_an_inactive_tool_is_as_good_as_none(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool SET active = false WHERE name = 'project.create'")
    with pytest.raises(NotFound, match="not active"):
        await toolbox.execute(member, create)
    assert "project.create" not in {tool.name for tool in await toolbox.list_for_agent(microdao, SOFIA)}
    permissions = {one.name: one for one in await toolbox.permissions(microdao, SOFIA)}
    assert permissions["project.create"].granted is False
    assert "not active" in permissions["project.create"].reason


@pytest.mark.parametrize(("risk", "allowed"), [("A", True), ("B", True), ("C", False), ("D", False)])
async def test_confidential_flows_use_low_risks_only(
    database: Database,
    toolbox: Toolbox,
    member: Principal,
    create: ToolCallRequest,
    microdao: str,
    risk: str,
    allowed: bool,
):
    async with database.system() as connection:
        await connection.execute("UPDATE tool_version SET risk = %s WHERE microdao_id = %s", (risk, microdao))
    call = toolbox.execute(member, replace(create, confidential=True))
    if allowed:
        assert (await call).status == "succeeded"
    else:
        with pytest.raises(ConfidentialDenied, match=risk):
            await call
        (denial,) = await rows(database, microdao, "SELECT action, reason FROM policy_denial")
        assert denial["action"] == "tool.invoke"
        assert f"of risk {risk}" in denial["reason"]


async def test_looking_for_what_one_may_not_use_is_a_denial(database: Database, toolbox: Toolbox, microdao: str):
    await toolbox.set_grants(microdao, SOFIA, [], ["math"])
    with pytest.raises(NotFound):
        await toolbox.find_for_agent(microdao, SOFIA, "math")
    (denial,) = await rows(database, microdao, "SELECT action, resource_id FROM policy_denial")
    assert denial == {"action": "tool.list", "resource_id": "math"}


async def test_another_tenant_sees_nothing(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    queued = await toolbox.submit(member, create)
    stranger = "microdao:stranger"
    with pytest.raises(NotFound):
        await toolbox.run_queued(stranger, queued.execution_id, None)
    assert await toolbox.list_all(stranger, "", 100) == []
    assert await toolbox.executions(stranger) == []
    with pytest.raises(NotFound, match="tools are: none"):
        await toolbox.find(stranger, "math")


async def test_the_audit_log_is_filtered_and_paged(
    toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    for name in ("a", "b", "a"):
        await toolbox.execute(member, replace(create, args={"name": name}))
    await toolbox.execute(member, replace(create, tool="math", args={"expression": "1 / 0"}))
    entries = await toolbox.executions(microdao)
    assert [(entry["tool"], entry["status"]) for entry in entries] == [
        ("math", "failed"),
        ("project.create", "failed"),
        ("project.create", "succeeded"),
        ("project.create", "succeeded"),
    ]
    assert entries[0]["error_code"] == "tool_failed"
    assert entries[0]["error_message"] == "the expression divides by zero"
    assert await toolbox.executions(microdao, tool="create_project", status="failed") == [entries[1]]
    assert await toolbox.executions(microdao, agent_id=SOFIA, before=entries[1]["execution_id"], limit=1) == [
        entries[2]
    ]
    assert await toolbox.executions(microdao, agent_id="agent:nobody") == []
    with pytest.raises(InvalidRequest):
        await toolbox.executions(microdao, status="lost")
    with pytest.raises(NotFound):
        await toolbox.executions(microdao, tool="unheard")
