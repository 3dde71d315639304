"""Folders, template, events and the state machine name the same things; nobody commits what does not belong."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from localstack.wiring import read_wiring
from shared.settings import ROOT

FUNCTIONS = {path.parent.name for path in (ROOT / "functions").glob("*/__init__.py")}
EVENTS = sorted((ROOT / "events").glob("*.json"))


def test_functions_stand_in_the_template_under_their_folders() -> None:
    wiring = read_wiring()
    assert {function.folder for function in wiring.functions} == FUNCTIONS
    for function in wiring.functions:
        assert function.name == "".join(part.title() for part in function.folder.split("_"))


def test_every_trigger_has_a_golden_event() -> None:
    wiring = read_wiring()
    named = {(path.stem.split(".")[0], path.stem.split(".")[1].split("_")[0]) for path in EVENTS}
    assert {function for function, _ in named} <= FUNCTIONS
    for mapping in wiring.event_sources:
        assert (wiring.function(mapping.function).folder, "sqs") in named
    for schedule in wiring.schedules:
        assert (wiring.function(schedule.function).folder, "schedule") in named


def test_the_state_machine_calls_functions_and_queues_of_the_template() -> None:
    wiring = read_wiring()
    (machine,) = wiring.state_machines
    text = Path(machine.definition_file).read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(machine.substitutions)


@pytest.mark.parametrize("path", EVENTS, ids=[path.stem for path in EVENTS])
def test_events_carry_ids_only(path: Path) -> None:
    allowed = {
        "job_id",
        "microdao_id",
        "item_ids",
        "tool_ids",
        "execution_id",
        "notification_id",
        "delivery_id",
        "event_id",
        "flow_id",
        "task_token",
        "job",
        "revision",
    }
    event = json.loads(path.read_text(encoding="utf-8"))
    for record in event.get("Records", []):
        body = json.loads(record["body"])
        assert set(body) | set(body.get("job", {})) <= allowed


def test_decision_records_have_unique_numbers() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")]
    assert len(numbers) == len(set(numbers)) > 0


def test_nothing_committed_names_a_registry_or_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in listed.stdout.split():
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace") if (ROOT / name).is_file() else ""
        assert "--index-url" not in text or name.startswith("tests/"), name
