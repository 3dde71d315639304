"""Each built-in tool on stored rows, called as an agent calls it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.bootstrap import Services
from shared.db.database import Database
from shared.errors import InvalidArgs
from shared.policy.principal import agent_principal
from shared.settings import Settings
from shared.tools.model import ToolCallRequest, ToolOutcome

SOFIA = "agent:sofia"
Call = Callable[..., Awaitable[ToolOutcome]]


@pytest.fixture(scope="module")
async def services(settings: Settings, models: Path) -> AsyncIterator[Services]:
    services = Services(settings)
    yield services
    await services.close()


@pytest.fixture
async def call(services: Services, microdao: str) -> Call:
    await services.toolbox.seed(microdao, SOFIA)

    async def call(tool: str, **args: Any) -> ToolOutcome:
        request = ToolCallRequest(microdao, SOFIA, tool, args, SOFIA)
        return await services.toolbox.execute(agent_principal(SOFIA, microdao), request)

    return call


async def add_document(database: Database, microdao: str, title: str, body: str) -> None:
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO document (id, microdao_id, title, body) VALUES ('doc_' || gen_random_uuid(), %s, %s, %s)",
            (microdao, title, body),
        )


async def test_math(call: Call):
    assert (await call("math", expression="6 * 7")).result == {"result": 42}
    failed = await call("math", expression="1 / 0")
    assert (failed.status, failed.error_code) == ("failed", "tool_failed")
    assert "divides by zero" in str(failed.error_message)


async def test_projects(call: Call):
    assert (await call("projects.list")).result == {"projects": [], "total": 0}
    first = await call("project.create", name="  Website ", description="Relaunch")
    assert first.result["name"] == "Website"
    second = await call("create_project", name="Привіт 👋")
    await call("task.create", title="Draft", project="Website")
    listed = (await call("projects.list")).result
    assert listed["total"] == 2
    assert [project["id"] for project in listed["projects"]] == [second.result["id"], first.result["id"]]
    assert listed["projects"][1]["description"] == "Relaunch"
    assert [project["open_tasks"] for project in listed["projects"]] == [0, 1]
    newest = (await call("projects.list", limit=1.0)).result
    assert (len(newest["projects"]), newest["total"]) == (1, 2)


async def test_a_project_name_is_taken_once(call: Call):
    await call("project.create", name="Website")
    again = await call("project.create", name="Website ")
    assert (again.status, again.error_code) == ("failed", "tool_failed")
    assert "'Website' exists already" in str(again.error_message)
    assert (await call("projects.list")).result["total"] == 1


async def test_tasks(call: Call):
    loose = await call("task.create", title="Think")
    created = {"id": loose.result["id"], "title": "Think", "project": None, "state": "open"}
    assert loose.result == {**created, "assignee": None, "due_at": None}
    project = (await call("project.create", name="Website")).result
    for name in ("Website", "website", project["id"]):
        assert (await call("create_task", title="Draft", project=name)).result["project"] == "Website"
    assert (await call("projects.list")).result["projects"][0]["open_tasks"] == 3
    lost = await call("task.create", title="Draft", project="Webshop")
    assert lost.status == "failed"
    assert lost.error_message == "no project 'Webshop'; projects are: Website"


async def test_tasks_are_listed_newest_first(call: Call):
    assert (await call("tasks.list")).result == {"tasks": [], "total": 0}
    await call("project.create", name="Website")
    loose = (await call("task.create", title="Think", description="Hard")).result
    drafted = (await call("task.create", title="Draft", project="Website")).result
    listed = (await call("list_tasks")).result
    assert listed["total"] == 2
    assert [task["id"] for task in listed["tasks"]] == [drafted["id"], loose["id"]]
    assert listed["tasks"][1] == {
        "id": loose["id"],
        "title": "Think",
        "description": "Hard",
        "state": "open",
        "project": None,
        "assignee": None,
        "due_at": None,
        "done_at": None,
        "created_by": SOFIA,
        "created_at": listed["tasks"][1]["created_at"],
    }
    newest = (await call("tasks.list", limit=1)).result
    assert (len(newest["tasks"]), newest["total"]) == (1, 2)


async def test_tasks_of_one_project_and_state(call: Call):
    await call("project.create", name="Website")
    await call("task.create", title="Think")
    for title in ("Draft", "Publish"):
        await call("task.create", title=title, project="Website")
    assert (await call("task.update", task="Draft", state="done")).result["state"] == "done"

    async def titles(**args: Any) -> list[str]:
        return [task["title"] for task in (await call("tasks.list", **args)).result["tasks"]]

    assert await titles(project="website") == ["Publish", "Draft"]
    assert await titles(project="Website", state="open") == ["Publish"]
    assert await titles(state="done") == ["Draft"]
    lost = await call("tasks.list", project="Webshop")
    assert lost.error_message == "no project 'Webshop'; projects are: Website"
    with pytest.raises(InvalidArgs, match='"half" is not one of'):
        await call("tasks.list", state="half")


async def test_a_task_is_changed(call: Call):
    task = (await call("task.create", title="Draft", assignee="sofia", due="2030-05-01")).result
    assert (task["assignee"], task["due_at"]) == (SOFIA, "2030-05-01T23:59:59.000Z")
    await call("project.create", name="Website")
    changed = await call(
        "update_task",
        task="draft",
        title="Final",
        due="2030-05-02T09:00",
        time_zone="Europe/Kyiv",
        assignee="user:olena",
        project="website",
        state="done",
    )
    assert changed.result == {
        "id": task["id"],
        "title": "Final",
        "description": "",
        "state": "done",
        "project": "Website",
        "assignee": "user:olena",
        "due_at": "2030-05-02T06:00:00.000Z",
    }
    (listed,) = (await call("tasks.list", assignee="user:olena")).result["tasks"]
    assert listed["done_at"] is not None
    cleared = (await call("task.update", task=task["id"], assignee=None, due=None, project=None, state="open")).result
    assert (cleared["assignee"], cleared["due_at"], cleared["project"]) == (None, None, None)
    (listed,) = (await call("tasks.list", state="open")).result["tasks"]
    assert (listed["done_at"], listed["title"]) == (None, "Final")


async def test_tasks_by_due_date(call: Call):
    for title, due in (("Late", "P9D"), ("Soon", "PT2H"), ("Past", "2020-01-01T00:00:00Z")):
        await call("task.create", title=title, due=due)
    await call("task.create", title="Whenever")
    found = (await call("tasks.list", due_before="P7D")).result
    assert [task["title"] for task in found["tasks"]] == ["Past", "Soon"]
    assert found["total"] == 2


async def test_which_task_is_meant(call: Call):
    first, second = [(await call("task.create", title="Call")).result["id"] for _ in range(2)]
    unclear = await call("task.update", task="Call", state="done")
    assert unclear.error_message == f"several tasks are titled 'Call'; name one by its id: {second}, {first}"
    await call("task.update", task=first, state="done")
    assert (await call("task.update", task="Call", title="Call back")).result["id"] == second, "the open one"
    assert "no task 'Nap'" in str((await call("task.update", task="Nap", state="done")).error_message)
    with pytest.raises(InvalidArgs):
        await call("task.update", task="Call")


@pytest.mark.parametrize("name", ["agent:nobody", "channel:general", "user:", " "])
async def test_nobody_such_can_be_given_a_task(call: Call, name: str):
    failed = await call("task.create", title="Draft", assignee=name)
    assert (failed.status, failed.error_code) == ("failed", "tool_failed")
    assert "agents are: agent:sofia" in str(failed.error_message)


async def test_a_project_is_renamed_and_archived(call: Call):
    for name in ("Website", "Garden"):
        await call("project.create", name=name)
    taken = await call("project.update", project="Garden", name="Website")
    assert (taken.status, taken.error_code) == ("failed", "tool_failed")
    renamed = (await call("update_project", project="garden", name="Orchard", description="Apples")).result
    assert renamed == {"id": renamed["id"], "name": "Orchard", "description": "Apples", "archived": False}
    assert (await call("project.update", project="Orchard", archived=True)).result["archived"] is True
    assert [one["name"] for one in (await call("projects.list")).result["projects"]] == ["Website"]
    assert [one["name"] for one in (await call("projects.list", archived=True)).result["projects"]] == ["Orchard"]
    refused = await call("task.create", title="Prune", project="Orchard")
    assert "is archived" in str(refused.error_message)
    await call("project.update", project="Orchard", archived=False)
    assert (await call("task.create", title="Prune", project="Orchard")).status == "succeeded"


async def test_two_tenants_may_use_one_project_name(call: Call, database: Database, microdao: str):
    async with database.system() as connection:
        other = f"{microdao}-other"
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
        await connection.execute(
            "INSERT INTO project (id, microdao_id, name, created_by) VALUES (%s, %s, 'Website', 'x')", (other, other)
        )
    assert (await call("project.create", name="Website")).status == "succeeded"
    assert (await call("task.create", title="Spy", project=other)).status == "failed"
    assert (await call("projects.list")).result["total"] == 1


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("What is a microDAO?", "What a microDAO is"),
        ("how are memories found by meaning", "How agents remember"),
        ("who grants tools to an agent", "Tools and permissions"),
        ("flow replayed after restart", "Flows and the router"),
        ("revoked API key", "API keys and models"),
        ("tenancy", "What a microDAO is"),
        ("мікроДАО", "What a microDAO is"),
        ("пам'ять агента", "How agents remember"),
        ("микроДАО", "What a microDAO is"),
    ],
)
async def test_search_docs_finds_the_help_page(call: Call, query: str, title: str):
    results = (await call("search_docs", query=query, k=3)).result["results"]
    assert results[0]["title"] == title
    assert results[0]["snippet"]
    assert [result["score"] for result in results] == sorted((result["score"] for result in results), reverse=True)
    assert len(results) <= 3


async def test_search_docs_tells_which_words_were_found(call: Call):
    found = (await call("search_docs", query="the capital of France")).result["results"]
    assert {word for entry in found for word in entry["matched"]} <= {"the", "of"}
    found = (await call("search_docs", query="tenancy in Berlin")).result["results"]
    assert found[0]["matched"] == ["in", "tenancy"]


async def test_search_docs_weighs_rare_words_and_needs_only_one(call: Call, database: Database, microdao: str):
    await add_document(database, microdao, "Баланс", "Залишок коштів на рахунку спільноти.")
    await add_document(database, microdao, "Notes", "the the the the and and and of of of")
    results = (await call("search_docs", query="the рахунку")).result["results"]
    assert results[0]["title"] == "Баланс"
    assert len(results) > 1
    assert len((await call("search_docs", query="рахунку", k=20.0)).result["results"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "zzzunheard",
        "!!! ??? ...",
        "' | & ! ( ) : * <-> \\ \\' '' \"",
        "a & b | !c:*",
        "it's C:\\path\\to 'file'",
        "http://example.com/a?b=c'd\\e user@example.com",
        "<b>tag</b> &amp; -1.5e10 %s %(x)s {y}",
        "x" * 1000,
        "👋",
    ],
)
async def test_search_docs_takes_any_text(call: Call, query: str):
    outcome = await call("search_docs", query=query)
    assert outcome.status == "succeeded", outcome.error_message


async def test_search_docs_finds_what_holds_operators_and_quotes(call: Call, database: Database, microdao: str):
    await add_document(database, microdao, "Paths", "Look into C:\\path\\to or /usr/local/bin/it's or user@example.com")
    for query in ("/usr/local/bin/it's", "user@example.com", "c:\\path\\to"):
        results = (await call("search_docs", query=query)).result["results"]
        assert results[0]["title"] == "Paths", query
