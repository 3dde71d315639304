"""The ``http`` executor: one request to the URL of the tool's config (``http_config`` says what that may hold)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from shared.tools.executors.http_config import method_of
from shared.tools.executors.http_request import HttpCall, build_call, needed_secrets, with_defaults
from shared.tools.executors.outside import Outside, deadline_of, hidden, renewal, told_honestly
from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.web.answers import Answer, check_status, pick, value_of
from shared.tools.web.errors import UnusableAnswer

if TYPE_CHECKING:
    from shared.tools.secrets.secrets import OpenSecrets
    from shared.tools.web.client import WebClient

_DEFAULTS = {"Accept": "application/json, text/*;q=0.5", "User-Agent": "daarion"}
_SAFE = ("GET", "HEAD")
_TOKEN = "platform token"  # noqa: S105 - what redaction shows in its place


class HttpExecutor:
    """An outer executor. It neither retries nor stores."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The service's answer: JSON as its value, text as a string.

        Raises ToolFailed when nothing happened, ToolUncertain when it may have.
        """
        if tool.config.get("base") == "platform":
            return await self._call_platform(tool, args, invocation)
        names = needed_secrets(tool.config)
        async with self._outside.opened(invocation.microdao_id, names, _fixed_url(tool.config)) as secrets:
            call = build_call(tool.config, args, secrets.values)
            return await _call(self._outside.client, tool, call, invocation, secrets)

    async def _call_platform(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The platform's services are told for whom the call is."""
        from shared.tools.secrets.secrets import OpenSecrets

        platform = self._outside.platform
        if platform is None:
            raise ToolFailed(
                f"{tool.name} needs the platform's services; this installation has no DAARION_PLATFORM_URL"
            )
        config = {**tool.config, "url": platform.url + tool.config["url"]}
        secrets = OpenSecrets.of({_TOKEN: platform.token} if platform.token else {})
        with hidden(secrets):
            call = build_call(config, args, {})
            for header, caller in (("Microdao", invocation.microdao_id), ("Agent", invocation.agent_id)):
                call.headers[f"X-Daarion-{header}"] = quote(caller, safe=":")
            if platform.token:
                call.headers["Authorization"] = f"Bearer {platform.token}"
            return await _call(platform.client, tool, call, invocation, secrets)


async def _call(
    client: "WebClient", tool: Tool, call: HttpCall, invocation: Invocation, secrets: "OpenSecrets"
) -> object:
    from shared.tools.web.client import WebRequest

    request = WebRequest(
        microdao_id=invocation.microdao_id,
        method=call.method,
        url=call.target,
        headers={**with_defaults(call.headers, _DEFAULTS), "Idempotency-Key": invocation.execution_id},
        body=call.body or b"",
        max_redirects=int(tool.config.get("max_redirects", 0)),
    )
    try:
        answer = await client.send(request, deadline_of(tool, invocation))
        return _result(answer, tool.config, secrets)
    except ToolFailed as failure:
        may_repeat = tool.may_run_again or method_of(tool.config) in _SAFE
        raise told_honestly(failure, may_repeat=may_repeat) from None


def _result(answer: Answer, config: Mapping[str, Any], secrets: "OpenSecrets") -> object:
    if answer.status in (401, 403):
        raise ToolFailed(renewal(secrets.values, answer.status), code="unauthorized")
    check_status(answer, "the service", secrets.redactor.text)
    value = value_of(answer)
    if "result_path" in config:
        try:
            value = pick(value, config["result_path"])
        except KeyError as missing:
            path = config["result_path"]
            raise UnusableAnswer(f"the answer has nothing at {path} ({missing} is not there)", answer.status) from None
    return secrets.redactor.value(value)


def _fixed_url(config: Mapping[str, Any]) -> str:
    """The tool's URL up to its path, which is all that decides where it leads."""
    parts = urlsplit(config["url"])
    return f"{parts.scheme}://{parts.netloc}/"
