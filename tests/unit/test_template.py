"""What template.yaml must always be true to; cfn-lint knows none of this."""

import json
import re
from typing import Any

import pytest

from localstack.wiring import Wiring, read_template, read_wiring
from shared.settings import ROOT, VARIABLES

TEMPLATE = read_template()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
GLOBALS: dict[str, Any] = TEMPLATE["Globals"]["Function"]
WIRING: Wiring = read_wiring()
MAIN_QUEUES = [queue for queue in WIRING.queues if queue.dead_letter]
ADAPTER_VARIABLES = {
    "AWS_LWA_PASS_THROUGH_PATH",
    "AWS_LWA_READINESS_CHECK_PATH",
    "AWS_LWA_ERROR_STATUS_CODES",
    "AWS_LWA_INVOKE_MODE",
}


def properties(name: str) -> dict[str, Any]:
    return RESOURCES[name]["Properties"]


def of_type(kind: str) -> list[str]:
    return [name for name, resource in RESOURCES.items() if resource["Type"] == kind]


def alarms_on(queue: str, metric: str) -> list[str]:
    return [
        name
        for name in of_type("AWS::CloudWatch::Alarm")
        if properties(name)["MetricName"] == metric
        and properties(name)["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": f"{queue}.QueueName"}}]
    ]


def test_folders_and_functions_name_each_other():
    folders = {path.name for path in (ROOT / "functions").iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert {function.folder for function in WIRING.functions} == folders
    for function in WIRING.functions:
        assert function.name == "".join(word.capitalize() for word in function.folder.split("_"))


@pytest.mark.parametrize("path", sorted((ROOT / "events").glob("*.json")), ids=lambda path: path.name)
def test_each_golden_event_names_a_function(path):
    assert path.name.split(".")[0] in {function.folder for function in WIRING.functions}


@pytest.mark.parametrize("schedule", WIRING.schedules, ids=lambda one: f"{one.function}-{one.payload['task']}")
def test_each_schedule_has_its_golden_event(schedule):
    folder = WIRING.function(schedule.function).folder
    golden = [json.loads(path.read_text()) for path in (ROOT / "events").glob(f"{folder}.schedule*.json")]
    assert golden.count(schedule.payload) == 1


@pytest.mark.parametrize("function", WIRING.functions, ids=lambda function: function.name)
def test_each_function_says_what_it_needs(function):
    stated = {**GLOBALS, **properties(function.name)}
    assert stated["MemorySize"] >= 512
    assert 0 < function.timeout_s <= 900
    assert properties(function.name)["Policies"]
    assert "Role" not in stated
    assert stated["LoggingConfig"]["ApplicationLogLevel"]


def test_variables_are_those_that_settings_know():
    for function in WIRING.functions:
        own = properties(function.name).get("Environment", {}).get("Variables", {})
        assert {*GLOBALS["Environment"]["Variables"], *own} <= set(VARIABLES.values()) | ADAPTER_VARIABLES


def test_a_5xx_is_a_failed_invocation():
    variables = GLOBALS["Environment"]["Variables"]
    assert variables["AWS_LWA_ERROR_STATUS_CODES"] == "500-599"
    assert variables["PORT"] != "8080"


def test_the_adapter_streams_where_the_url_does():
    for name in of_type("AWS::Serverless::Function"):
        streams = properties(name).get("FunctionUrlConfig", {}).get("InvokeMode") == "RESPONSE_STREAM"
        own = properties(name).get("Environment", {}).get("Variables", {})
        assert (own.get("AWS_LWA_INVOKE_MODE") == "response_stream") == streams


@pytest.mark.parametrize("mapping", WIRING.event_sources, ids=lambda mapping: mapping.queue)
def test_a_message_stays_hidden_six_times_as_long_as_the_function_may_take(mapping):
    visibility_s = {queue.name: queue.visibility_timeout_s for queue in WIRING.queues}[mapping.queue]
    assert visibility_s >= 6 * WIRING.function(mapping.function).timeout_s


def test_every_queue_is_consumed_or_takes_dead_letters():
    consumed = [mapping.queue for mapping in WIRING.event_sources]
    assert sorted(consumed + [queue.dead_letter for queue in MAIN_QUEUES]) == sorted(q.name for q in WIRING.queues)


@pytest.mark.parametrize("queue", MAIN_QUEUES, ids=lambda queue: queue.name)
def test_poison_is_kept_and_reported(queue):
    dead_letters = {one.name: one for one in WIRING.queues}[queue.dead_letter]
    assert queue.max_receives >= 5
    assert dead_letters.retention_s == 14 * 86400
    assert alarms_on(dead_letters.name, "ApproximateNumberOfMessagesVisible")
    assert alarms_on(queue.name, "ApproximateAgeOfOldestMessage")


@pytest.mark.parametrize("name", of_type("AWS::SQS::Queue"))
def test_queues_are_encrypted(name):
    assert properties(name)["SqsManagedSseEnabled"] is True


@pytest.mark.parametrize("name", of_type("AWS::Serverless::Function"))
def test_batches_report_their_failures(name):
    for event in properties(name).get("Events", {}).values():
        if event["Type"] == "SQS":
            assert event["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
            assert event["Properties"]["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_no_statement_is_about_everything():
    assert not re.search(r'"Resource": (\[)?"\*"', json.dumps(TEMPLATE))
    assert not re.search(r'"Action": (\[)?"[a-z]+:\*"', json.dumps(TEMPLATE))


@pytest.mark.parametrize("machine", WIRING.state_machines, ids=lambda machine: machine.name)
def test_every_placeholder_of_a_definition_is_filled(machine):
    placeholders = set(re.findall(r"\$\{(\w+)\}", machine.definition_file.read_text()))
    assert placeholders == set(machine.substitutions)
    assert set(machine.substitutions.values()) <= {function.name for function in WIRING.functions}


@pytest.mark.parametrize("machine", WIRING.state_machines, ids=lambda machine: machine.name)
def test_every_task_ends_in_time(machine):
    for name, state in tasks(json.loads(machine.definition_file.read_text())):
        assert "TimeoutSeconds" in state or "TimeoutSecondsPath" in state, name


def tasks(definition: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, state in definition["States"].items():
        if state["Type"] == "Task":
            found.append((name, state))
        nested = [*state.get("Branches", []), *filter(None, [state.get("ItemProcessor"), state.get("Iterator")])]
        for part in nested:
            found += tasks(part)
    return found
