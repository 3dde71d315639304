"""Prompt experiments of a microDAO: definitions and results by variant."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.llm.experiments.experiments import Experiment, Variant
from shared.policy.principal import Principal

router = APIRouter(prefix="/admin/experiments", route_class=JsonRoute, responses=ERRORS, tags=["Administration"])
ExperimentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Target = Annotated[str, Field(min_length=1, max_length=256)]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class VariantBody(Body):
    """One way to answer; what is left out stays as it was asked. ``append`` adds to the system prompt."""

    name: ExperimentName
    weight: int = Field(default=1, ge=0, le=1_000_000)
    instructions: str | None = Field(default=None, min_length=1, max_length=100_000)
    instructions_mode: Literal["append", "replace"] = "append"
    model: Target | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)


class DefinitionBody(Body):
    """Which calls are shared out (those of a logical model or of a blueprint) and between which variants."""

    model: Target | None = None
    blueprint: Target | None = None
    variants: list[VariantBody] = Field(min_length=1, max_length=20)
    active: bool = True
    microdao_id: Target | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "DefinitionBody":
        if (self.model is None) == (self.blueprint is None):
            raise ValueError("name either a model or a blueprint")
        if len({variant.name for variant in self.variants}) < len(self.variants):
            raise ValueError("variants must have different names")
        if not any(variant.weight for variant in self.variants):
            raise ValueError("at least one variant must have a weight above 0")
        return self


class ExperimentBody(DefinitionBody):
    """A new experiment."""

    name: ExperimentName


class ExperimentView(View):
    """An experiment."""

    name: str
    model: str | None
    blueprint: str | None
    variants: list[VariantBody]
    active: bool
    created_at: datetime
    updated_at: datetime


class ExperimentPage(View):
    """A page of experiments; pass ``next`` as ``after`` for the following one."""

    experiments: list[ExperimentView]
    next: str | None


class VariantFigures(View):
    """What the calls of a variant came to. Latencies are percentiles in milliseconds, null without a call."""

    variant: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cost_microusd: int
    latency_ms_p50: float | None
    latency_ms_p95: float | None


class ExperimentResults(View):
    """Figures by variant, in the definition's order."""

    name: str
    variants: list[VariantFigures]


@router.post("", status_code=201, summary="Create an experiment")
async def create_experiment(body: ExperimentBody, services: ServicesDep, principal: PrincipalDep) -> ExperimentView:
    """409 when the name is taken, or the target has an active experiment."""
    principal = await _administrator(services, principal, body.microdao_id)
    _check_models(services, body)
    await services.experiments.create(principal.microdao_id, _experiment(body.name, body))
    return await _view(services, principal, body.name)


@router.get("", summary="List experiments")
async def list_experiments(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> ExperimentPage:
    """By name."""
    principal = await _administrator(services, principal, microdao_id)
    rows = await services.experiments.list(principal.microdao_id, after or "", limit)
    views = [ExperimentView.model_validate(row) for row in rows]
    return ExperimentPage(experiments=views, next=views[-1].name if len(views) == limit else None)


@router.get("/{name}", summary="One experiment")
async def get_experiment(
    name: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> ExperimentView:
    """Its definition."""
    return await _view(services, await _administrator(services, principal, microdao_id), name)


@router.put("/{name}", summary="Change an experiment")
async def put_experiment(
    name: str, body: DefinitionBody, services: ServicesDep, principal: PrincipalDep
) -> ExperimentView:
    """The whole definition. With other weights some sessions move to another variant."""
    principal = await _administrator(services, principal, body.microdao_id)
    _check_models(services, body)
    await services.experiments.replace(principal.microdao_id, _experiment(name, body))
    return await _view(services, principal, name)


@router.delete("/{name}", summary="Delete an experiment")
async def delete_experiment(
    name: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """What its calls cost stays in the ledger."""
    principal = await _administrator(services, principal, microdao_id)
    await services.experiments.delete(principal.microdao_id, name)
    return Accepted()


@router.get("/{name}/results", summary="Results by variant")
async def get_results(
    name: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> ExperimentResults:
    """Every call that the experiment changed since it has this name."""
    principal = await _administrator(services, principal, microdao_id)
    rows = await services.experiments.results(principal.microdao_id, name)
    return ExperimentResults(name=name, variants=[VariantFigures.model_validate(row) for row in rows])


async def _administrator(services: Services, principal: Principal, microdao_id: str | None) -> Principal:
    principal = within(principal, microdao_id)
    await permit(services, principal, "experiment.write")
    return principal


def _check_models(services: Services, body: DefinitionBody) -> None:
    for index, variant in enumerate(body.variants):
        if variant.model is not None and not services.gateway.knows(variant.model):
            raise InvalidRequest(f"there is no model {variant.model!r}", param=f"variants.{index}.model")


def _experiment(name: str, body: DefinitionBody) -> Experiment:
    variants = tuple(Variant(**variant.model_dump()) for variant in body.variants)
    return Experiment(name=name, model=body.model, blueprint=body.blueprint, variants=variants, active=body.active)


async def _view(services: Services, principal: Principal, name: str) -> ExperimentView:
    return ExperimentView.model_validate(await services.experiments.get(principal.microdao_id, name))
