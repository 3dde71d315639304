"""``daarion doctor``: looks at everything a stack needs and says what to do about what is amiss."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from localstack.home import Home, RunningStack
from localstack.postgres import PostgresError, binaries
from localstack.process import port_is_free
from shared.bootstrap import Services
from shared.cloud.aws import Aws, in_thread
from shared.cloud.health import answers_ok
from shared.errors import SettingError
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: whether it is fine, and what was seen or what to do."""

    check: str
    ok: bool
    detail: str


async def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which a start needs them."""
    running = Home(settings.home).running()
    findings = [_python(), _postgres_binaries(settings), _home(settings), _port(settings, running)]
    if running is None and not settings.database_url:
        findings.append(Finding("stack", True, "not running; `daarion up` starts it"))
    else:
        findings += [await check(settings, running) for check in _LIVE_CHECKS]
    return [*findings, await _model(settings)]


def render(findings: list[Finding], as_json: bool) -> str:
    """A table for people, or JSON."""
    if as_json:
        ok = all(finding.ok for finding in findings)
        return json.dumps({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    return "\n".join(f"{'ok  ' if one.ok else 'FAIL'}  {one.check:<12} {one.detail}" for one in findings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", (3, 11) <= sys.version_info[:2] < (3, 14), f"{version} (3.11 to 3.13 are supported)")


def _postgres_binaries(settings: Settings) -> Finding:
    if settings.database_url:
        return Finding("postgres", True, "DATABASE_URL is used")
    try:
        return Finding("postgres", True, f"binaries in {binaries()}")
    except PostgresError as error:
        return Finding("postgres", False, str(error))


def _home(settings: Settings) -> Finding:
    folder = Home(settings.home).folder
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("home", True, str(folder))
    return Finding("home", False, f"cannot write to {existing}; set DAARION_HOME to a folder you own")


def _port(settings: Settings, running: RunningStack | None) -> Finding:
    place = f"{settings.host}:{settings.port}"
    if running:
        return Finding("port", True, f"the stack (process {running.process_id}) listens at {running.api_url}")
    if port_is_free(settings.host, settings.port):
        return Finding("port", True, f"{place} is free")
    return Finding("port", False, f"{place} is taken by something else; set PORT to a free one")


async def _database(settings: Settings, running: RunningStack | None) -> Finding:
    url = settings.database_url or (running.database_url if running else "")
    services = Services(replace(settings, database_url=url))
    missing = await services.missing()
    await services.close()
    return Finding("database", not missing, f"missing: {', '.join(missing)}" if missing else "up, schema up to date")


async def _engine(settings: Settings, running: RunningStack | None) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    url = settings.aws_endpoint_url or (running.engine_url if running else "")
    try:
        answer = await in_thread(Aws(settings.aws_region, url).sqs.list_queues)
    except (BotoCoreError, ClientError) as error:
        return Finding("engine", False, f"{url}: {error}")
    return Finding("engine", True, f"{url or 'AWS'} answers, {len(answer.get('QueueUrls', []))} queues")


async def _api(settings: Settings, running: RunningStack | None) -> Finding:
    url = running.api_url if running else f"http://{settings.host}:{settings.port}"
    ok = await answers_ok(f"{url}/readyz")
    return Finding(
        "api", ok, f"{url} is ready" if ok else f"{url}/readyz does not say ready; see the logs in DAARION_HOME"
    )


_LIVE_CHECKS: tuple[Callable[[Settings, RunningStack | None], Awaitable[Finding]], ...] = (_database, _engine, _api)


async def _model(settings: Settings) -> Finding:
    services = Services(settings)
    try:
        model = services.gateway.default_model()
        real = "" if model != "offline" else "; set OPENAI_API_KEY or start an Ollama for a real one"
        return Finding("model", True, f"{model}{real}")
    except SettingError as error:
        return Finding("model", False, str(error))
    finally:
        await services.close()
