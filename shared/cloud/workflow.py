"""Step Functions: start a flow's execution, look at it, and answer task tokens."""

from typing import Any, Literal

import orjson

from shared.cloud.aws import Aws, in_thread

ExecutionStatus = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE", "LOST"]

# A token that timed out, was answered before, or belongs to an engine that forgot it: the answer came late.
_LATE = ("TaskTimedOut", "TaskDoesNotExist", "InvalidToken")


class Workflow:
    """One state machine."""

    def __init__(self, aws: Aws, state_machine_arn: str) -> None:
        self._aws = aws
        self._arn = state_machine_arn

    async def start(self, name: str, payload: dict[str, Any]) -> str:
        """Start an execution under a unique name and return its ARN; the same name and input again is harmless."""
        answer = await in_thread(
            self._aws.stepfunctions.start_execution,
            stateMachineArn=self._arn,
            name=name,
            input=orjson.dumps(payload).decode(),
        )
        return answer["executionArn"]

    async def status(self, execution_arn: str) -> ExecutionStatus:
        """The execution's status; LOST when the engine does not know it (a local engine forgets at restart)."""
        client = self._aws.stepfunctions
        try:
            answer = await in_thread(client.describe_execution, executionArn=execution_arn)
        except (client.exceptions.ExecutionDoesNotExist, client.exceptions.InvalidArn):
            return "LOST"
        return answer["status"]

    async def stop(self, execution_arn: str, cause: str) -> None:
        """Stop an execution; one that has ended or is unknown is left alone."""
        client = self._aws.stepfunctions
        try:
            await in_thread(client.stop_execution, executionArn=execution_arn, error="stopped", cause=cause)
        except (client.exceptions.ExecutionDoesNotExist, client.exceptions.InvalidArn):
            return

    async def succeed_task(self, token: str, output: dict[str, Any]) -> bool:
        """Answer a waiting task; False when the answer comes late."""
        return await self._answer("send_task_success", taskToken=token, output=orjson.dumps(output).decode())

    async def fail_task(self, token: str, error: str, cause: str) -> bool:
        """Fail a waiting task under one of the platform's error codes; False when the answer comes late."""
        return await self._answer("send_task_failure", taskToken=token, error=error, cause=cause)

    async def _answer(self, operation: str, **kwargs: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            await in_thread(getattr(self._aws.stepfunctions, operation), **kwargs)
        except ClientError as error:
            if error.response["Error"]["Code"] in _LATE:
                return False
            raise
        return True
