"""models.yaml: the shipped file is valid, and every fault names its entry."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingError
from shared.llm.models import load_model_table, parse_model_table
from shared.settings import CONFIG_DIR

ROUTE = {"provider": "openai", "model": "gpt-4.1"}


def table(**route: Any) -> dict[str, Any]:
    return {"default": "m", "models": {"m": {"routes": [ROUTE | route]}}}


def test_shipped_file_has_the_promised_models():
    shipped = load_model_table(CONFIG_DIR / "models.yaml")
    assert set(shipped.models) == {
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
    for name in ("cheap", "smart", "local"):
        routes = shipped.models[name].routes
        assert routes[-1].provider == "offline"
        assert routes[-1].last_resort


@pytest.mark.parametrize(
    ("document", "entry"),
    [
        (None, "models must map"),
        ({"models": {}}, "models must map"),
        ({"default": "x", "models": {"m": {"routes": [ROUTE]}}}, "default must name"),
        ({"default": "m", "models": {"m": {"routes": []}}}, "models.m.routes"),
        ({"default": "m", "models": {"m": {"routes": ["openai"]}}}, "models.m.routes.0"),
        (table(provider="opnai"), "models.m.routes.0.provider"),
        (table(model=7), "models.m.routes.0.model"),
        (table(model="*"), "models.m.routes.0.model"),
        (table(priority="high"), "models.m.routes.0.priority"),
        (table(weight=0), "models.m.routes.0.weight"),
        (table(weight=float("inf")), "models.m.routes.0.weight"),
        (table(last_resort="yes"), "models.m.routes.0.last_resort"),
        (table(wait=1), "models.m.routes.0 has unknown fields: wait"),
    ],
)
def test_fault_names_its_entry(document, entry):
    with pytest.raises(SettingError, match=entry.replace(".", r"\.")):
        parse_model_table(document)


def test_unreadable_file_names_the_setting(tmp_path: Path):
    with pytest.raises(SettingError, match="DAARION_MODELS"):
        load_model_table(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("models: [")
    with pytest.raises(SettingError, match="DAARION_MODELS"):
        load_model_table(tmp_path / "bad.yaml")
