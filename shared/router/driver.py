"""Drives one flow one turn: reads its row, asks the engine, acts, writes the row, and says where to go next.

The row's ``revision`` makes a turn happen once: whoever comes with an older one is told what was decided then, and of
two who come with the same one only the first to write goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from shared.db.database import Database
from shared.errors import Unavailable
from shared.observability import Log
from shared.router import store
from shared.router.engine import Begin, CallModel, Event, Failed, Next, Plan, Proceed, Recover, decide
from shared.router.flow import FlowState
from shared.router.steps import Dispatched, StepRunner
from shared.router.store import StoredFlow

Phase = Literal["init", "plan", "step", "recover"]

PHASES: Final[dict[Phase, Event]] = {"init": Begin(), "plan": Plan(), "step": Proceed(), "recover": Recover()}
_SAME_PHASE: Final = {"step": "execute", "recover": "recover"}
"""The move that would come straight back to the same phase, and so is made at once."""

_HEARTBEAT_S = 10.0
_SILENCE_S = 30.0  # after which a model call is taken for lost
_BUSY: Final = {"action": "delay", "seconds": 2}

# The state machine's own names for a wait that ended badly.
_ENGINE_ERRORS: Final = {"States.Timeout": "tool_timeout", "States.HeartbeatTimeout": "tool_timeout"}

_log = Log("router")


@dataclass(frozen=True, slots=True)
class Turn:
    """One call from the state machine: ids and numbers only. ``error`` is the name of what ended a wait, or empty."""

    phase: Phase
    microdao_id: str
    flow_id: str
    revision: int
    error: str = ""


class Driver:
    """Takes turns with flows."""

    def __init__(self, database: Database, runner: StepRunner, tool_queue_url: str) -> None:
        self._database = database
        self._runner = runner
        self._tool_queue_url = tool_queue_url

    async def take(self, turn: Turn) -> dict[str, Any]:
        """Take a turn and answer ``{"run", "next", "last"}`` for the state machine."""
        flow = await self._load(turn.microdao_id, turn.flow_id)
        if flow is None:
            return _answer(turn.microdao_id, turn.flow_id, 0, {"action": "abort"})
        if turn.revision != flow.revision or flow.state.is_finished or _is_busy(flow, turn):
            _log.info("turn taken before", phase=turn.phase, revision=turn.revision, current=flow.revision)
            return _answer_from(flow)
        flow = await self._play(flow, turn.phase, await self._first_event(flow, turn))
        return _answer_from(flow)

    async def _first_event(self, flow: StoredFlow, turn: Turn) -> Event:
        """What happened: a finished execution counts before anything that the state machine says."""
        position = flow.state.first("running") if flow.state.state == "WAIT_TOOL" else None
        if position is None:
            return PHASES[turn.phase]
        if outcome := await self._runner.outcome(flow, position):
            return outcome
        if turn.phase == "recover":
            code = _ENGINE_ERRORS.get(turn.error, turn.error or "internal")
            return Failed(position, code, "the tool's run was waited for in vain")
        return PHASES[turn.phase]

    async def _play(self, flow: StoredFlow, phase: Phase, event: Event) -> StoredFlow:
        """Decide and act until the turn's one write that tells the state machine where to go."""
        state, may_repeat = flow.state, phase in _SAME_PHASE
        while True:
            state, move = decide(state, event)
            if isinstance(move, CallModel):
                saved = await self._save(flow, state, _BUSY)
                if saved is None:
                    return await self._reload(flow)
                flow, may_repeat = saved, False
                async with self._heartbeat(flow):
                    event = await self._runner.call_model(flow, move.position)
            elif move.action == "tool" and move.position is not None:
                submitted = await self._runner.submit_tool(flow, state, move.position)
                if isinstance(submitted, Dispatched):
                    state = _with_execution(state, move.position, submitted.execution_id)
                    return await self._save_or_reload(flow, state, self._tool_job(flow, submitted))
                event = submitted
            elif may_repeat and move.action == _SAME_PHASE[phase]:
                event = PHASES[phase]
            else:
                return await self._save_or_reload(flow, state, _instruction(state, move))

    def _tool_job(self, flow: StoredFlow, submitted: Dispatched) -> dict[str, Any]:
        job = {"microdao_id": flow.microdao_id, "flow_id": flow.id, "execution_id": submitted.execution_id}
        return {"action": "tool", "queue_url": self._tool_queue_url, "job": job}

    async def _load(self, microdao_id: str, flow_id: str) -> StoredFlow | None:
        async with self._database.tenant(microdao_id) as connection:
            return await store.load_flow(connection, flow_id)

    async def _reload(self, flow: StoredFlow) -> StoredFlow:
        _log.info("another driver was first", flow_id=flow.id, revision=flow.revision)
        return await self._load(flow.microdao_id, flow.id) or flow

    async def _save_or_reload(self, flow: StoredFlow, state: FlowState, next_: dict[str, Any]) -> StoredFlow:
        return await self._save(flow, state, next_) or await self._reload(flow)

    async def _save(self, flow: StoredFlow, state: FlowState, next_: dict[str, Any]) -> StoredFlow | None:
        async with self._database.tenant(flow.microdao_id) as connection:
            saved = await store.save_flow(connection, flow, state, next_)
        if saved is not None:
            _log_progress(flow, saved)
        return saved

    @asynccontextmanager
    async def _heartbeat(self, flow: StoredFlow) -> AsyncIterator[None]:
        """Keep the row fresh during a long call, so that nobody takes it for lost."""
        beating = asyncio.create_task(self._beat(flow))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self, flow: StoredFlow) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with suppress(Unavailable):  # the next beat may get through
                async with self._database.tenant(flow.microdao_id) as connection:
                    await store.touch_flow(connection, flow.id, flow.revision)


def _is_busy(flow: StoredFlow, turn: Turn) -> bool:
    """Whether another driver is in the middle of a model call. One that begins anew knows that there is none."""
    calling = flow.state.state == "EXECUTE_STEP" and flow.state.first("running") is not None
    return calling and turn.phase != "init" and flow.idle_s < _SILENCE_S


def _with_execution(state: FlowState, position: int, execution_id: str) -> FlowState:
    step = replace(state.steps[position], execution_id=execution_id)
    return replace(state, steps=(*state.steps[:position], step, *state.steps[position + 1 :]))


def _instruction(state: FlowState, move: Next) -> dict[str, Any]:
    if move.action == "delay":
        return {"action": "delay", "seconds": move.seconds}
    failed = state.first("failed") if move.action == "recover" else None
    error = state.steps[failed].error if failed is not None else None
    return {"action": move.action, "error": error.code} if error else {"action": move.action}


def _answer_from(flow: StoredFlow) -> dict[str, Any]:
    return _answer(flow.microdao_id, flow.id, flow.revision, flow.next)


def _answer(microdao_id: str, flow_id: str, revision: int, next_: Mapping[str, Any]) -> dict[str, Any]:
    """``last.Error`` stands where the state machine puts the name of an error that it caught itself."""
    instruction = {name: value for name, value in next_.items() if name != "error"}
    return {
        "run": {"microdao_id": microdao_id, "flow_id": flow_id, "revision": revision},
        "next": instruction,
        "last": {"Error": next_.get("error", "")},
    }


def _log_progress(before: StoredFlow, after: StoredFlow) -> None:
    for step, old in zip(after.state.steps, before.state.steps, strict=True):
        if step.state != old.state:
            error = step.error.code if step.error else None
            fields = {"type": step.type, "tool": step.tool, "attempts": step.attempts, "fell_back": step.fell_back}
            _log.info(f"step {step.state}", flow_id=after.id, step=step.id, error=error, **fields)
    if after.state.is_finished:
        event = "router.flow.completed" if after.state.state == "DONE" else "router.flow.failed"
        code = after.state.error.code if after.state.error else None
        _log.info(event, flow_id=after.id, state=after.state.state, error=code, cost_microusd=after.state.cost_microusd)
