"""From what an executor returned or raised to the outcome that is stored. Pure functions."""

import json
import re
from dataclasses import dataclass
from typing import Any

from shared.tools.arguments import schema_faults, storage_faults
from shared.tools.model import Status, Tool, ToolFailed, ToolOutcome, ToolUncertain

MAX_RESULT_BYTES = 1_048_576
MAX_MESSAGE = 4_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Ran:
    """How the attempts of an execution ended: with a result, or with the last failure."""

    result: Any = None
    failure: ToolFailed | None = None

    def status(self, tool: Tool) -> Status:
        """``unknown`` when the effect may have happened and must not be repeated to find out."""
        if self.failure is None:
            return "succeeded"
        return "unknown" if isinstance(self.failure, ToolUncertain) and not tool.idempotent else "failed"


def check_result(tool: Tool, result: Any) -> Any:
    """The result, if it can be stored. Raises ToolFailed: it is no JSON, too large, or breaks the tool's own schema."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ToolFailed(f"{tool.name} answered with something that is not JSON") from None
    if len(text) > MAX_RESULT_BYTES:
        raise ToolFailed(f"{tool.name} answered with more than {MAX_RESULT_BYTES:,} bytes; ask it for less")
    faults = list(storage_faults(result)) or (tool.result_schema and schema_faults(tool.result_schema, result))
    if faults:
        where = f"{faults[0].path}: " if faults[0].path else ""
        raise ToolFailed(f"{tool.name} answered in another shape than it promises: {where}{faults[0].message}")
    return result


def outcome_of(tool: Tool, execution_id: str, ran: Ran, ms: int) -> ToolOutcome:
    """The outcome to store. What may have happened is charged like what did."""
    status = ran.status(tool)
    return ToolOutcome(
        execution_id=execution_id,
        tool_name=tool.name,
        status=status,
        result=ran.result if status == "succeeded" else None,
        error_code=ran.failure.code if ran.failure else None,
        error_message=_storable(ran.failure.message) if ran.failure else None,
        ms=ms,
        cost_microusd=tool.cost_microusd if status in ("succeeded", "unknown") else 0,
    )


def _storable(message: str) -> str:
    """A failure's words as the database takes them: others wrote them, and an outcome that cannot be stored is lost."""
    return _UNSTORABLE.sub("\ufffd", message[:MAX_MESSAGE])
