"""What exists, read from template.yaml: functions, queues, event source mappings, schedules and state machines.

The local stack is made from this; there is no second list.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.settings import ROOT

TEMPLATE = ROOT / "template.yaml"

Json = dict[str, Any]

_FUNCTION = "AWS::Serverless::Function"
_STATE_MACHINE = "AWS::Serverless::StateMachine"
_UNITS_S = {"minute": 60, "hour": 3600, "day": 86400}


class WiringError(ValueError):
    """The template says something that the local stack does not understand."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its logical id, ASGI app (``functions.chat.app:app``) and time-out."""

    name: str
    app: str
    timeout_s: int

    @property
    def folder(self) -> str:
        """Its folder under functions/."""
        return self.app.split(".")[1]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue; ``dead_letter`` names the queue that takes a message received ``max_receives`` times."""

    name: str
    visibility_timeout_s: int
    retention_s: int
    dead_letter: str | None
    max_receives: int


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """Batches of a queue go to a function."""

    function: str
    queue: str
    batch_size: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A payload goes to a function again and again."""

    function: str
    interval_s: int
    payload: Json


@dataclass(frozen=True, slots=True)
class StateMachine:
    """A state machine; ``substitutions`` maps placeholders of its definition to the functions whose ARN they take."""

    name: str
    definition_file: Path
    substitutions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Wiring:
    """Everything. ``variables`` maps environment variables to the queue or state machine whose address they take."""

    functions: tuple[Function, ...]
    queues: tuple[QueueSpec, ...]
    event_sources: tuple[EventSourceMapping, ...]
    schedules: tuple[Schedule, ...]
    state_machines: tuple[StateMachine, ...]
    variables: dict[str, str]

    def function(self, name: str) -> Function:
        """The function with this logical id. Raises KeyError."""
        return {function.name: function for function in self.functions}[name]

    def environment(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """The variables that tell a function where its queues and state machines are."""
        return {variable: addresses[resource] for variable, resource in self.variables.items()}


def read_template(path: Path = TEMPLATE) -> Json:
    """The template with ``!Ref X`` as ``{"Ref": "X"}`` and ``!GetAtt A.B`` as ``{"Fn::GetAtt": "A.B"}``."""
    template: Json = yaml.load(path.read_text(encoding="utf-8"), Loader=_TemplateLoader)  # noqa: S506
    return template


def read_wiring(path: Path = TEMPLATE) -> Wiring:
    """Parse a template. Raises WiringError for what cannot be stood up locally."""
    template = read_template(path)
    resources: Json = template["Resources"]
    return Wiring(
        functions=tuple(_functions(template)),
        queues=tuple(_queues(resources)),
        event_sources=tuple(_event_sources(resources)),
        schedules=tuple(_schedules(resources)),
        state_machines=tuple(_state_machines(resources, path.parent)),
        variables=dict(_variables(template)),
    )


class _TemplateLoader(yaml.CSafeLoader):
    """YAML with CloudFormation's short forms."""


def _short_form(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> Json:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    raise WiringError(f"!{suffix} takes a word or a list here")


_TemplateLoader.add_multi_constructor("!", _short_form)


def _of_type(resources: Json, kind: str) -> Iterator[tuple[str, Json]]:
    for name, resource in resources.items():
        if resource["Type"] == kind:
            yield name, resource.get("Properties", {})


def _functions(template: Json) -> Iterator[Function]:
    default_timeout_s = template["Globals"]["Function"]["Timeout"]
    for name, properties in _of_type(template["Resources"], _FUNCTION):
        yield Function(name, properties["ImageConfig"]["Command"][0], properties.get("Timeout", default_timeout_s))


def _queues(resources: Json) -> Iterator[QueueSpec]:
    for name, properties in _of_type(resources, "AWS::SQS::Queue"):
        redrive = properties.get("RedrivePolicy")
        yield QueueSpec(
            name=name,
            visibility_timeout_s=properties.get("VisibilityTimeout", 30),
            retention_s=properties.get("MessageRetentionPeriod", 345_600),
            dead_letter=_attribute_owner(redrive["deadLetterTargetArn"]) if redrive else None,
            max_receives=redrive["maxReceiveCount"] if redrive else 0,
        )


def _events(resources: Json, kind: str) -> Iterator[tuple[str, Json]]:
    for name, properties in _of_type(resources, _FUNCTION):
        for event in properties.get("Events", {}).values():
            if event["Type"] == kind:
                yield name, event["Properties"]


def _event_sources(resources: Json) -> Iterator[EventSourceMapping]:
    for function, properties in _events(resources, "SQS"):
        yield EventSourceMapping(
            function=function,
            queue=_attribute_owner(properties["Queue"]),
            batch_size=properties.get("BatchSize", 10),
            concurrency=properties["ScalingConfig"]["MaximumConcurrency"],
        )


def _schedules(resources: Json) -> Iterator[Schedule]:
    for function, properties in _events(resources, "ScheduleV2"):
        yield Schedule(function, interval_s(properties["ScheduleExpression"]), json.loads(properties["Input"]))


def _state_machines(resources: Json, folder: Path) -> Iterator[StateMachine]:
    for name, properties in _of_type(resources, _STATE_MACHINE):
        substitutions = properties.get("DefinitionSubstitutions", {})
        yield StateMachine(
            name=name,
            definition_file=folder / properties["DefinitionUri"],
            substitutions={key: _attribute_owner(value) for key, value in substitutions.items()},
        )


def _variables(template: Json) -> Iterator[tuple[str, str]]:
    """Variables that hold a resource's address: a queue by ``!Ref``, a state machine by its name in an ARN."""
    resources = template["Resources"]
    for variable, value in template["Globals"]["Function"]["Environment"]["Variables"].items():
        if not isinstance(value, dict):
            continue
        resource = value.get("Ref") or str(value.get("Fn::Sub")).rpartition(":stateMachine:${AWS::StackName}-")[2]
        if resource in resources:
            yield variable, resource


def _attribute_owner(value: Json) -> str:
    try:
        return str(value["Fn::GetAtt"]).split(".")[0]
    except KeyError:
        raise WiringError(f"expected !GetAtt Resource.Attribute, found {value!r}") from None


def interval_s(expression: str) -> int:
    """``rate(5 minutes)`` in seconds. Source: EventBridge Scheduler, rate-based schedules. Raises WiringError."""
    match = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if match is None:
        raise WiringError(f"only rate(n minutes|hours|days) schedules run locally, not {expression!r}")
    return int(match[1]) * _UNITS_S[match[2]]
