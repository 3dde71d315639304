"""A package that is installed while the platform runs brings tools: found, granted, run on the one path."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.bootstrap import Services
from shared.settings import Settings
from shared.tools.catalogue.plugins import Plugins
from tests.integration.test_tools_admin_api import BASE, SOFIA, client_of

CODE = """
async def shout(args, invocation):
    return {"said": args["text"].upper(), "for": invocation.agent_id}

def whisper(args, invocation):
    if not args["text"]:
        raise ValueError("say something")
    return args["text"].lower()

SCHEMA = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
TOOLS = [
    {"name": "voice.shout", "description": "Shouts.", "parameters": SCHEMA, "function": shout, "risk": "A"},
    {"name": "voice.whisper", "description": "Whispers.", "parameters": SCHEMA, "function": whisper},
]
"""


def install(folder: Path, name: str, code: str, entry: str) -> None:
    """A distribution as pip leaves it."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[daarion.tools]\n{entry}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder of installed packages, empty at first."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in ("daarion_voice", "daarion_broken"):
        sys.modules.pop(name, None)


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    services = Services(settings)
    services.__dict__["plugins"] = Plugins(clock=iter(range(0, 10**9, 60)).__next__)  # each look is a new one
    yield services
    await services.close()


@pytest.fixture
async def admin(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "admin") as client:
        yield client


async def call(admin: httpx.AsyncClient, name: str, text: Any) -> dict[str, Any]:
    body = {"tool_name": name, "agent_id": SOFIA, "args": {"text": text}}
    return (await admin.post("/internal/tools/call", json=body)).json()


async def test_a_package_brings_tools_without_a_restart(
    admin: httpx.AsyncClient, services: Services, microdao: str, site: Path
):
    await services.toolbox.seed(microdao)
    permissions = f"/internal/tools/agents/{SOFIA}/permissions"
    assert (await admin.put(permissions, json={"grant": ["voice.shout"]})).status_code == 404
    install(site, "daarion_voice", CODE, "voice = daarion_voice:TOOLS")
    granted = await admin.put(permissions, json={"grant": ["voice.shout", "voice.whisper"]})
    assert granted.status_code == 200, granted.text
    shouted = await call(admin, "voice.shout", "hey")
    assert (shouted["status"], shouted["result"]) == ("succeeded", {"said": "HEY", "for": SOFIA})
    assert (await call(admin, "voice.whisper", "HEY"))["result"] == "hey"
    failed = await call(admin, "voice.whisper", "")
    assert (failed["status"], failed["error"]["message"]) == ("failed", "say something")
    assert (await call(admin, "voice.shout", 7))["error"]["code"] == "invalid_args"
    audit = (await admin.get("/internal/tools/executions", params={"tool": "voice.shout"})).json()["executions"]
    assert len(audit) == 1
    tools = {one["name"]: one for one in (await admin.get(BASE)).json()["tools"]}
    assert (tools["voice.shout"]["risk"], tools["voice.shout"]["config"]) == ("A", {"plugin": "voice.shout"})


async def test_without_a_grant_it_does_not_run(admin: httpx.AsyncClient, services: Services, microdao: str, site: Path):
    install(site, "daarion_voice", CODE, "voice = daarion_voice:TOOLS")
    await services.toolbox.seed(microdao, SOFIA)
    refused = await admin.post(
        "/internal/tools/call", json={"tool_name": "voice.shout", "agent_id": SOFIA, "args": {"text": "x"}}
    )
    assert refused.status_code == 403


async def test_what_was_deleted_does_not_come_back(admin: httpx.AsyncClient, site: Path):
    install(site, "daarion_voice", CODE, "voice = daarion_voice:TOOLS")
    tools = {one["name"]: one["id"] for one in (await admin.get(BASE)).json()["tools"]}
    await admin.delete(f"{BASE}/{tools['voice.shout']}")
    assert [one["name"] for one in (await admin.get(BASE)).json()["tools"]] == ["voice.whisper"]


async def test_a_package_that_goes_leaves_a_clear_failure(admin: httpx.AsyncClient, services: Services, site: Path):
    install(site, "daarion_voice", CODE, "voice = daarion_voice:TOOLS")
    await admin.put(f"/internal/tools/agents/{SOFIA}/permissions", json={"grant": ["voice.shout"]})
    for path in (site / "daarion_voice-1.0.dist-info").iterdir():
        path.unlink()
    assert "voice.shout" not in services.plugins
    gone = await call(admin, "voice.shout", "x")
    assert "not installed" in gone["error"]["message"]


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('no')",
        "TOOLS = 7",
        "TOOLS = {'name': 'a'}",
        "TOOLS = {'name': 'a', 'description': 'b', 'parameters': {'type': 'object'}, 'function': 1}",
        "TOOLS = {'name': 'a', 'description': 'b', 'parameters': {'type': 'x'}, 'function': print}",
        "TOOLS = {'name': '1', 'description': 'b', 'parameters': {'type': 'object'}, 'function': print}",
        "TOOLS = {'name': 'a', 'description': 'b', 'parameters': {'type': 'object'}, 'function': print, 'config': {}}",
    ],
)
async def test_a_broken_package_is_left_out(services: Services, site: Path, code: str):
    install(site, "daarion_broken", code, "broken = daarion_broken:TOOLS")
    assert list(services.plugins) == []


def test_a_function_may_declare_the_tools(site: Path):
    install(site, "daarion_voice", CODE + "\ndef tools():\n    return TOOLS\n", "voice = daarion_voice:tools")
    assert sorted(Plugins()) == ["voice.shout", "voice.whisper"]
