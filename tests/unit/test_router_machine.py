"""The state machine's file keeps what the brain and the design promise."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from statelint.linter import Linter

from shared.router.driver import PHASES
from shared.router.engine import Action
from shared.settings import ROOT

FILE = ROOT / "statemachines" / "router.asl.json"
MACHINE = json.loads(FILE.read_text(encoding="utf-8"))
STATES = MACHINE["States"]
README = (ROOT / "statemachines" / "README.md").read_text(encoding="utf-8")


def tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in {**STATES, **STATES["PARALLEL_GROUP"]["ItemProcessor"]["States"]}.items():
        if state["Type"] == "Task":
            yield name, state


def edges() -> Iterator[tuple[str, str]]:
    for name, state in STATES.items():
        targets = [state.get("Next"), state.get("Default")]
        targets += [one["Next"] for one in (*state.get("Choices", ()), *state.get("Catch", ()))]
        yield from ((name, target) for target in targets if target)


def test_the_twelve_states_of_the_design():
    assert set(STATES) == {
        "INIT",
        "ROUTE",
        "PLAN",
        "WAIT_APPROVAL",
        "EXECUTE_STEP",
        "WAIT_TOOL",
        "WAIT_AGENT",
        "PARALLEL_GROUP",
        "BACKOFF",
        "ERROR_RECOVERY",
        "DONE",
        "ABORTED",
    }


def test_it_is_valid():
    assert Linter.validate(MACHINE) == []


def test_every_action_of_the_brain_has_its_choice():
    assert [choice["StringEquals"] for choice in STATES["ROUTE"]["Choices"]] == list(get_args(Action))


def test_every_phase_the_machine_asks_for_is_one_the_brain_knows():
    asked = {task["Parameters"]["Payload"]["phase"] for _, task in tasks() if "lambda" in task["Resource"]}
    assert asked == set(PHASES)


@pytest.mark.parametrize(("name", "task"), list(tasks()))
def test_every_task_has_a_timeout_and_retries_service_errors(name, task):
    assert 0 < task["TimeoutSeconds"] <= (86400 if name == "WAIT_APPROVAL" else 130)
    assert "HeartbeatSeconds" not in task
    for retrier in task["Retry"]:
        assert all(error.startswith(("Lambda.", "SQS.")) for error in retrier["ErrorEquals"])
        assert isinstance(retrier["BackoffRate"], float)


def test_a_job_carries_the_token_and_ids_only():
    for name, task in tasks():
        if "sqs" in task["Resource"]:
            assert task["Resource"].endswith(":sqs:sendMessage.waitForTaskToken"), name
            assert set(task["Parameters"]["MessageBody"]) == {"task_token.$", "job.$"}, name


def test_nothing_but_jsonpath():
    assert "QueryLanguage" not in FILE.read_text(encoding="utf-8")


def test_the_drawn_diagram_is_the_machine():
    drawn = re.findall(r"^    (\w+) --> (\w+)", README, flags=re.MULTILINE)
    assert set(drawn) == set(edges())
