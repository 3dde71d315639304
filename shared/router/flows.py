"""The router's front: start a flow, look at it, drive it, and take up again what a crash left behind."""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final, cast

from shared.cloud.workflow import Workflow
from shared.db.database import Connection, Database, Row
from shared.errors import IdempotencyConflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.observability import Log
from shared.policy.principal import Principal
from shared.router import store
from shared.router.driver import PHASES, Driver, Phase, Turn
from shared.router.engine import Stop, decide
from shared.router.flow import FlowRequest, FlowState, Step
from shared.router.steps import StepRunner
from shared.router.validate import Known, check_outline, fingerprint, mode_of, storable, tool_names, validate
from shared.router.views import flow_view

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway
    from shared.policy.policy import Policy
    from shared.tools.toolbox import Toolbox

MAX_EXECUTIONS: Final = 20
"""Executions a flow may use up before it is given up: something about it ends them."""

_PAGE = 100
_POLL_S = (0.02, 0.5)  # at first, at most
_FLOW_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_log = Log("router")


class Flows:
    """Flows of every microDAO; each method sees only the one it is given, the sweep sees all."""

    def __init__(
        self,
        database: Database,
        workflow: Workflow,
        gateway: "Gateway",
        toolbox: "Toolbox",
        policy: "Policy",
        tool_queue_url: str,
        usd_per_1t: float,
    ) -> None:
        self._database = database
        self._workflow = workflow
        self._gateway = gateway
        self._usd_per_1t = usd_per_1t
        self._driver = Driver(database, StepRunner(database, gateway, toolbox, policy), tool_queue_url)

    async def start(self, principal: Principal, request: FlowRequest) -> dict[str, Any]:
        """Check the flow, write it down, start its execution, and show it.

        The same ``idempotency_key`` again shows the flow it started. Raises InvalidRequest, LimitExceeded, NotFound
        (microDAO, agent) and IdempotencyConflict.
        """
        check_outline(request)
        document = storable(request)
        microdao_id = _microdao_of(principal, request)
        steps = validate(request, await self._known(microdao_id, request))
        async with self._database.tenant(microdao_id) as connection:
            flow_id, is_new = await _insert(connection, principal, request, document, steps)
        if is_new:
            _log.info("router.flow.started", flow_id=flow_id, steps=len(steps))
            await self._launch_safely({"id": flow_id, "microdao_id": microdao_id, "executions": 0})
        return await self.get(microdao_id, flow_id)

    async def get(self, microdao_id: str, flow_id: str) -> dict[str, Any]:
        """The flow as the API shows it. Raises NotFound."""
        _check_id(flow_id)
        async with self._database.tenant(microdao_id) as connection:
            views = await store.load_views(connection, [flow_id], outputs=True)
        if flow_id not in views:
            raise _no_flow(flow_id)
        return flow_view(*views[flow_id], self._usd_per_1t)

    async def list(self, microdao_id: str, before: str | None, limit: int) -> list[dict[str, Any]]:
        """Flows without outputs, newest first, before the flow ``before``."""
        if before is not None:
            _check_id(before)
        async with self._database.tenant(microdao_id) as connection:
            flow_ids = await store.list_flow_ids(connection, before, limit)
            views = await store.load_views(connection, flow_ids, outputs=False)
        return [flow_view(*views[flow_id], self._usd_per_1t) for flow_id in flow_ids]

    async def wait(self, microdao_id: str, flow_id: str, seconds: float) -> dict[str, Any]:
        """The flow once it has ended, or as it is after so many seconds. Raises NotFound."""
        _check_id(flow_id)
        deadline = time.monotonic() + seconds
        pause, longest = _POLL_S
        while not await self._is_finished(microdao_id, flow_id) and time.monotonic() < deadline:
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, longest)
        return await self.get(microdao_id, flow_id)

    async def step(self, payload: dict[str, Any]) -> dict[str, Any]:
        """One turn of a flow, for the state machine: ids in, ids out. Raises InvalidRequest for another payload."""
        return await self._driver.take(_turn_from(payload))

    async def resume_lost(self) -> int:
        """Give every unfinished flow whose execution is gone a new one; how many. For the schedule."""
        resumed, after = 0, ""
        while True:
            async with self._database.system() as connection:
                rows = await store.list_unfinished(connection, after, _PAGE)
            for row in rows:
                resumed += await self._resume_if_lost(row)
            if len(rows) < _PAGE:
                return resumed
            after = rows[-1]["id"]

    async def _resume_if_lost(self, row: Row) -> bool:
        arn = row["execution_arn"]
        status = await self._workflow.status(arn) if arn else "LOST"
        if status in ("RUNNING", "PENDING_REDRIVE"):
            return False
        if row["executions"] >= MAX_EXECUTIONS:
            await self._give_up(row)
            return False
        _log.warning("flow resumed", flow_id=row["id"], status=status, executions=row["executions"])
        return await self._launch_safely(row)

    async def _give_up(self, row: Row) -> None:
        async with self._database.tenant(row["microdao_id"]) as connection:
            flow = await store.load_flow(connection, row["id"])
            if flow is None:
                return
            stop = Stop("internal", f"{MAX_EXECUTIONS} executions of the flow ended early; the log says why")
            state, _ = decide(flow.state, stop)
            await store.save_flow(connection, flow, state, {"action": "abort"})
        _log.warning("router.flow.failed", flow_id=row["id"], state=state.state, error="internal")

    async def _launch_safely(self, row: Row) -> bool:
        """Start an execution. The row is the truth: what fails here is made good by the next sweep."""
        try:
            return await self._launch(row)
        except Exception:
            _log.exception("execution not started; the next sweep tries again", flow_id=row["id"])
            return False

    async def _launch(self, row: Row) -> bool:
        flow_id, microdao_id = row["id"], row["microdao_id"]
        async with self._database.tenant(microdao_id) as connection:
            claimed = await store.claim_execution(connection, flow_id, row["executions"])
        if claimed is None:
            return False
        payload = {"microdao_id": microdao_id, "flow_id": flow_id, "revision": claimed["revision"]}
        arn = await self._workflow.start(f"{flow_id}-{claimed['executions']}", payload)
        async with self._database.tenant(microdao_id) as connection:
            await store.set_execution(connection, flow_id, claimed["executions"], arn)
        return True

    async def _known(self, microdao_id: str, request: FlowRequest) -> Known:
        tools = await self._tools_among(microdao_id, tool_names(request))
        return Known(tools, self._gateway.knows, self._gateway.default_model())

    async def _tools_among(self, microdao_id: str, asked: set[str]) -> set[str]:
        """Those of the names that are a tool's id, name or alias."""
        if not asked:
            return set()
        async with self._database.tenant(microdao_id) as connection:
            return asked & await store.tool_labels(connection, sorted(asked))

    async def _is_finished(self, microdao_id: str, flow_id: str) -> bool:
        async with self._database.tenant(microdao_id) as connection:
            finished = await store.is_finished(connection, flow_id)
        if finished is None:
            raise _no_flow(flow_id)
        return finished


async def _insert(
    connection: Connection,
    principal: Principal,
    request: FlowRequest,
    document: dict[str, Any],
    steps: tuple[Step, ...],
) -> tuple[str, bool]:
    """The flow's id and whether it is new: the row is written, or the one with the same key and request is found."""
    agent_id = await store.find_agent(connection, request.context.agent_id)
    if agent_id is None:
        raise NotFound(f"no agent {request.context.agent_id!r} in this microDAO", param="context.agent_id")
    flow_id = new_id("flow")
    is_new = await store.insert_flow(
        connection,
        flow_id=flow_id,
        microdao_id=principal.microdao_id,
        agent_id=agent_id,
        requested_by=principal.key_id,
        mode=mode_of(request),
        request=document,
        request_hash=fingerprint(document),
        state=FlowState(steps=steps),
    )
    if is_new:
        return flow_id, True
    earlier = await store.find_by_key(connection, str(request.idempotency_key))
    if earlier is None or earlier["request_hash"] != fingerprint(document):
        message = "this idempotency key started another flow; take a new key"
        raise IdempotencyConflict(message, param="idempotency_key")
    return str(earlier["id"]), False


def _microdao_of(principal: Principal, request: FlowRequest) -> str:
    named = {request.context.team_id, request.context.microdao_id} - {None, principal.microdao_id}
    if named:
        raise NotFound(f"no microDAO {named.pop()!r}", param="context.team_id")
    return principal.microdao_id


def _turn_from(payload: dict[str, Any]) -> Turn:
    phase, revision = payload.get("phase"), payload.get("revision")
    ids = (payload.get("microdao_id"), payload.get("flow_id"))
    if phase not in PHASES or type(revision) is not int or not all(isinstance(one, str) for one in ids):
        raise InvalidRequest(f"a turn needs phase ({', '.join(PHASES)}), microdao_id, flow_id and revision")
    last = payload.get("last")
    error = last.get("error") if isinstance(last, dict) else None
    return Turn(cast(Phase, phase), str(ids[0]), str(ids[1]), revision, str(error or ""))


def _check_id(flow_id: str) -> None:
    if not _FLOW_ID.fullmatch(flow_id):
        raise _no_flow(flow_id)


def _no_flow(flow_id: str) -> NotFound:
    return NotFound(f"no flow {flow_id[:100]!r}")
