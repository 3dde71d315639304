"""boto3 clients, made on first use. boto3 blocks, so callers run it in a thread (:func:`in_thread`)."""

import asyncio
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

P = ParamSpec("P")
T = TypeVar("T")


class Aws:
    """One session and its clients. ``endpoint_url`` points them at a local engine; empty means AWS itself."""

    def __init__(self, region: str, endpoint_url: str = "") -> None:
        self._region = region
        self._endpoint_url = endpoint_url

    @cached_property
    def sqs(self) -> "SQSClient":
        """The SQS client."""
        return self._client("sqs")  # type: ignore[no-any-return]

    @cached_property
    def stepfunctions(self) -> "SFNClient":
        """The Step Functions client."""
        return self._client("stepfunctions")  # type: ignore[no-any-return]

    @cached_property
    def _session(self) -> Any:
        import boto3  # 150 ms, and most cold starts need no AWS call

        local = {"aws_access_key_id": "local", "aws_secret_access_key": "local"} if self._endpoint_url else {}
        return boto3.Session(region_name=self._region, **local)  # type: ignore[arg-type]

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        config = Config(connect_timeout=3, read_timeout=30, max_pool_connections=32, retries={"mode": "standard"})
        return self._session.client(service, endpoint_url=self._endpoint_url or None, config=config)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking client call without blocking the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **kwargs))
