"""Reading template.yaml as the local stack does."""

import pytest

from localstack.provision import predicted_addresses, substituted
from localstack.wiring import WiringError, interval_s, read_wiring

SMALL = """
Globals:
  Function:
    Timeout: 60
    Environment:
      Variables:
        JOB_QUEUE_URL: !Ref Jobs
        MACHINE_ARN: !Sub arn:aws:states:${AWS::Region}:${AWS::AccountId}:stateMachine:${AWS::StackName}-Machine
        DATABASE_URL: !Ref DatabaseUrl
        PORT: "8000"
Resources:
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      Timeout: 7
      ImageConfig: {Command: [functions.worker.handler:app]}
      Events:
        Jobs:
          Type: SQS
          Properties: {Queue: !GetAtt Jobs.Arn, BatchSize: 3, ScalingConfig: {MaximumConcurrency: 4}}
        Clock:
          Type: ScheduleV2
          Properties: {ScheduleExpression: rate(5 minutes), Input: '{"task": "sweep"}'}
  Jobs:
    Type: AWS::SQS::Queue
    Properties:
      VisibilityTimeout: 42
      RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 5}
  Dead:
    Type: AWS::SQS::Queue
  Machine:
    Type: AWS::Serverless::StateMachine
    Properties:
      DefinitionUri: machine.json
      DefinitionSubstitutions: {WorkerArn: !GetAtt Worker.Arn}
"""


@pytest.fixture
def wiring(tmp_path):
    (tmp_path / "template.yaml").write_text(SMALL)
    (tmp_path / "machine.json").write_text('{"FunctionName": "${WorkerArn}"}')
    return read_wiring(tmp_path / "template.yaml")


def test_functions_have_their_app_folder_and_timeout(wiring):
    assert [(one.name, one.app, one.folder, one.timeout_s) for one in wiring.functions] == [
        ("Worker", "functions.worker.handler:app", "worker", 7)
    ]


def test_queues_know_their_dead_letters(wiring):
    assert [(one.name, one.visibility_timeout_s, one.dead_letter, one.max_receives) for one in wiring.queues] == [
        ("Jobs", 42, "Dead", 5),
        ("Dead", 30, None, 0),
    ]


def test_triggers(wiring):
    (mapping,) = wiring.event_sources
    assert (mapping.function, mapping.queue, mapping.batch_size, mapping.concurrency) == ("Worker", "Jobs", 3, 4)
    (schedule,) = wiring.schedules
    assert (schedule.function, schedule.interval_s, schedule.payload) == ("Worker", 300, {"task": "sweep"})


def test_variables_take_the_addresses_of_resources_and_leave_parameters_alone(wiring):
    addresses = predicted_addresses(wiring, "http://127.0.0.1:1", "eu-central-1")
    assert wiring.environment(addresses) == {
        "JOB_QUEUE_URL": "http://127.0.0.1:1/123456789012/daarion-Jobs",
        "MACHINE_ARN": "arn:aws:states:eu-central-1:123456789012:stateMachine:daarion-Machine",
    }


def test_a_definition_gets_the_arns_of_its_functions(wiring):
    (machine,) = wiring.state_machines
    text = substituted(machine.definition_file, machine.substitutions, "eu-central-1", "1")
    assert text == '{"FunctionName": "arn:aws:lambda:eu-central-1:1:function:Worker"}'


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(1 hour)", 3600), ("rate(2 days)", 172800)],
)
def test_rates(expression, seconds):
    assert interval_s(expression) == seconds


@pytest.mark.parametrize("expression", ["cron(0 12 * * ? *)", "rate(minute)", "rate(1 week)", ""])
def test_other_schedules_are_refused_by_name(expression):
    with pytest.raises(WiringError, match="only rate"):
        interval_s(expression)
