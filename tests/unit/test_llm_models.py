"""models.yaml: the shipped file is valid, every fault names its line and entry, and changes need no restart."""

import os
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingError
from shared.llm.routing.models_file import ModelFile, load_model_table, read_with_lines
from shared.llm.routing.models_parse import parse_model_table
from shared.settings import CONFIG_DIR

ROUTE = {"provider": "openai", "model": "gpt-4.1"}
MINIMAL = "default: m\nmodels:\n  m:\n    routes: [{provider: offline, model: offline}]\n"


def table(**route: Any) -> dict[str, Any]:
    return {"default": "m", "models": {"m": {"routes": [ROUTE | route]}}}


def model(**fields: Any) -> dict[str, Any]:
    embedding = {"kind": "embedding", "routes": [ROUTE]}
    return {"default": "m", "models": {"m": {"routes": [ROUTE], **fields}, "e": embedding}}


def test_shipped_file_has_the_promised_models():
    shipped = load_model_table(CONFIG_DIR / "models.yaml")
    chat = {
        "gpt-4.1-mini",
        "gpt-4.1",
        "claude-sonnet",
        "claude-haiku",
        "deepseek-chat",
        "local",
        "cheap",
        "smart",
        "offline",
    }
    assert {name for name, one in shipped.models.items() if one.kind == "chat"} == chat
    assert "text-embedding-3-small" in shipped.models
    for name in ("cheap", "smart", "local"):
        routes = shipped.models[name].routes
        assert routes[-1].provider == "offline"
        assert routes[-1].last_resort
    assert shipped.providers["local"].max_concurrency < shipped.providers["openai"].max_concurrency


def test_everything_that_can_be_said():
    said = parse_model_table(
        {
            "default": "m",
            "models": {
                "m": {
                    "routes": [
                        ROUTE | {"attempts": 3, "timeout_s": 9, "first_token_timeout_s": 1.5, "max_tokens": 100}
                    ],
                    "fallbacks": ["n"],
                },
                "n": {"routes": [ROUTE]},
            },
            "providers": {"openai": {"max_concurrency": 1, "max_queue": 0, "queue_timeout_s": 0.5}},
            "circuit": {"min_calls": 2},
        }
    )
    [route] = said.models["m"].routes
    assert (route.attempts, route.timeout_s, route.first_token_timeout_s, route.max_tokens) == (3, 9, 1.5, 100)
    assert said.models["m"].fallbacks == ("n",)
    assert (said.providers["openai"].max_queue, said.circuit.min_calls) == (0, 2)


@pytest.mark.parametrize(
    ("document", "entry"),
    [
        (None, "models must map"),
        ({"models": {}}, "models must map"),
        ({"default": "x", "models": {"m": {"routes": [ROUTE]}}}, "default must name"),
        (model() | {"default": "e"}, "default must name one of the chat models"),
        (model() | {"model": {}}, "model is unknown here"),
        ({"default": "m", "models": {"m": {"routes": []}}}, "models.m.routes must be a list"),
        ({"default": "m", "models": {"m": {"routes": ["openai"]}}}, "models.m.routes.0 must be a mapping"),
        ({"default": "m", "models": {"m": {"routes": [{"provider": "openai"}]}}}, "models.m.routes.0 has no model"),
        (table(provider="opnai"), "models.m.routes.0.provider must be one of openai"),
        (table(model=7), "models.m.routes.0.model must be a name; it is 7"),
        (table(model="*"), "models.m.routes.0.model may be"),
        (table(priority="high"), "models.m.routes.0.priority must be a whole number"),
        (table(weight=0), "models.m.routes.0.weight must be a number above 0"),
        (table(weight=float("inf")), "models.m.routes.0.weight"),
        (table(last_resort="yes"), "models.m.routes.0.last_resort must be true or false"),
        (table(attempts=0), "models.m.routes.0.attempts must be a whole number from 1 to 10"),
        (table(timeout_s="5s"), "models.m.routes.0.timeout_s"),
        (table(max_tokens=1.5), "models.m.routes.0.max_tokens"),
        (table(wait=1), "models.m.routes.0.wait is unknown here; known are provider"),
        (model(kind="speech"), "models.m.kind must be one of chat, embedding"),
        (model(fallbacks="n"), "models.m.fallbacks must be a list"),
        (model(fallbacks=["n"]), "models.m.fallbacks.0 must name another logical model; it is 'n'"),
        (model(fallbacks=["m"]), "models.m.fallbacks.0 must name another"),
        (model(fallbacks=["e"]), "models.m.fallbacks.0 must name a model of the same kind"),
        (model() | {"providers": {"opnai": {}}}, "providers.opnai is unknown here"),
        (model() | {"providers": {"openai": {}}}, "providers.openai has no max_concurrency"),
        (model() | {"providers": {"openai": {"max_concurrency": 0}}}, "providers.openai.max_concurrency must be"),
        (model() | {"circuit": {"failure_rate": 1.2}}, "circuit.failure_rate must be a number above 0 and at most 1"),
    ],
)
def test_fault_names_its_entry(document, entry):
    with pytest.raises(SettingError) as caught:
        parse_model_table(document)
    assert entry in str(caught.value)


FILE = """\
default: m
providers:
  openai: {max_concurrency: 4}
models:
  m:
    routes:
      - {provider: openai, model: gpt-4.1}
      - provider: openai
        model: gpt-4.1-mini
        weight: 2
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "entry"),
    [
        ("default: m", "default: x", 1, "default must name"),
        ("max_concurrency: 4", "max_concurrency: -4", 3, "providers.openai.max_concurrency"),
        ("weight: 2", "weight: two", 10, "models.m.routes.1.weight"),
        ("model: gpt-4.1-mini", "modle: gpt-4.1-mini", 8, "models.m.routes.1 has no model"),
        ("{provider: openai, model: gpt-4.1}", "openai", 7, "models.m.routes.0"),
        ("weight: 2", "weight: 2\n        weight: 3", 11, "models.m.routes.1.weight stands here a second time"),
        ("weight: 2", "weight: 2\n  m:\n    routes: []", 11, "models.m stands here a second time"),
    ],
)
def test_fault_names_its_line(tmp_path: Path, right, wrong, line, entry):
    path = tmp_path / "models.yaml"
    path.write_text(FILE.replace(right, wrong))
    with pytest.raises(SettingError) as caught:
        load_model_table(path)
    assert str(caught.value).startswith(f"{path}:{line}: {entry}")


def test_unreadable_file_names_the_setting(tmp_path: Path):
    with pytest.raises(SettingError, match="DAARION_MODELS"):
        load_model_table(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("models: [")
    with pytest.raises(SettingError, match=r"(?s)DAARION_MODELS.*line 1"):
        load_model_table(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="DAARION_MODELS"):
        load_model_table(tmp_path / "bad.yaml")


def test_an_alias_of_itself_is_a_fault(tmp_path: Path):
    path = tmp_path / "models.yaml"
    path.write_text("models: &here\n  m: *here\n")
    with pytest.raises(SettingError, match=r"refers to itself"):
        load_model_table(path)
    assert read_with_lines("a: &x {b: 1}\nc: *x\n")[0] == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = tmp_path / "models.yaml"
    path.write_text(MINIMAL)
    now = [0.0]
    models = ModelFile(path, lambda: now[0])
    first = models.table()
    write(path, MINIMAL.replace("m:", "m2:").replace("default: m", "default: m2"))
    assert models.table() is first, "looked at again within a second"
    now[0] += 1
    assert models.table().default == "m2"
    write(path, "default: nothing\n")
    now[0] += 1
    assert models.table().default == "m2", "a broken file must not take the table away"
    path.unlink()
    now[0] += 1
    assert models.table().default == "m2"
    write(path, MINIMAL)
    now[0] += 1
    assert models.table().default == "m"


def write(path: Path, text: str) -> None:
    """Write a file whose stamp differs for sure, however coarse the clock of the file system is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1, before + 1_000_000))
