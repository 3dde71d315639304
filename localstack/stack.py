"""The embedded stack: which services there are, what they are told, and the order in which they start and stop."""

import asyncio
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property

import psycopg
from psycopg.conninfo import conninfo_to_dict

from localstack.gateway import READY_PATH
from localstack.home import Home, RunningStack, StartError
from localstack.postgres import EmbeddedPostgres, PostgresError
from localstack.process import LOOPBACK, free_port, port_is_free
from localstack.provision import predicted_addresses, provision
from localstack.seed import SeededKeys, seed
from localstack.supervisor import Command, CommandService, Keeper, PostgresService, Supervisor, Tell, answers
from localstack.wiring import Wiring, read_wiring
from shared.bootstrap import Services
from shared.cloud.aws import Aws
from shared.db.migrate import migrate
from shared.settings import VARIABLES, Settings

_CHAT_APP = "functions.chat.app:app"
_READY_TIMEOUT_S = 60.0
_NO_MODEL = "none; a rule-based stand-in answers. Set OPENAI_API_KEY or start an Ollama for a real one"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a person wants to know of a running stack."""

    keys: SeededKeys
    model: str
    engine: str


class Stack:
    """One stack over one data folder. Use :meth:`start`, then :meth:`stop`."""

    def __init__(self, settings: Settings, home: Home, tell: Tell) -> None:
        self._settings = settings
        self._home = home
        self._tell = tell
        self._interrupted = threading.Event()
        self._supervisor = Supervisor(tell)
        self._began = time.monotonic()
        self._workers_port, self._engine_port = free_port(), free_port()

    def start(self, interrupted: threading.Event) -> Facts:
        """Start everything, as much as possible at the same time.

        Raises StartError, or what kept a service from starting. Returns early when ``interrupted`` is set.
        """
        self._interrupted = interrupted
        self._check_port()
        self._check_database()
        keepers = [self._supervisor.start(service) for service in self._services()]
        facts = self._seed(keepers)
        for keeper in keepers:
            self._await(keeper)
        self._home.announce(self._running())
        return facts

    def stop(self) -> None:
        """Stop everything: first who works, then what they work with. Takes under 5 s."""
        self._home.withdraw()
        self._supervisor.stop("chat", "workers")
        self._supervisor.stop("engine")
        self._supervisor.stop("postgres")

    @property
    def settings(self) -> Settings:
        """The settings that every child has."""
        return replace(
            self._settings,
            database_url=self.database_url,
            aws_endpoint_url=self.engine_url,
            secret_key=self._settings.secret_key or self._home.secret_key,
        )

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        host = self._settings.host
        shown = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{self._settings.port}"

    @property
    def engine_url(self) -> str:
        """The AWS engine: the configured one or ours."""
        return self._settings.aws_endpoint_url or f"http://{LOOPBACK}:{self._engine_port}"

    @property
    def database_url(self) -> str:
        """The runtime login's URL: the configured one or ours."""
        return self._settings.database_url or self._postgres.runtime_url

    @cached_property
    def _postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self._home.postgres)

    @property
    def _workers_url(self) -> str:
        return f"http://{LOOPBACK}:{self._workers_port}"

    @cached_property
    def _wiring(self) -> Wiring:
        return read_wiring()

    def _check_port(self) -> None:
        host, port = self._settings.host, self._settings.port
        if not port_is_free(host, port):
            raise StartError(f"port {port} of {host} is taken; set PORT to a free one")

    def _check_database(self) -> None:
        """Ours must be startable; a configured one is brought up to date at once."""
        try:
            if not self._settings.database_url:
                self._postgres.check()
            else:
                migrate_configured(self._settings)
                self._progress("the configured database is up to date")
        except PostgresError as error:
            raise StartError(str(error)) from error

    def _services(self) -> list[PostgresService | CommandService]:
        """In the order in which they are waited for; a configured database or engine is not ours to run."""
        services: list[PostgresService | CommandService] = []
        if not self._settings.database_url:
            services.append(PostgresService(self._postgres))
        environment = self._environment()
        if not self._settings.aws_endpoint_url:
            engine = ("-m", "localstack.engine", str(self._engine_port), self._workers_url)
            services.append(self._command("engine", engine, self.engine_url + READY_PATH, environment))
        workers = ("-m", "localstack.workers", str(self._workers_port))
        services.append(self._command("workers", workers, f"{self._workers_url}/healthz", environment))
        services.append(self._command("chat", self._uvicorn(), f"{self.api_url}/healthz", environment))
        return services

    def _command(
        self, name: str, arguments: tuple[str, ...], ready_url: str, environment: dict[str, str]
    ) -> CommandService:
        return CommandService(
            Command(name, arguments, environment, ready_url, self._home.logs / f"{name}.log"), self._tell
        )

    def _uvicorn(self) -> tuple[str, ...]:
        listen = ("--host", self._settings.host, "--port", str(self._settings.port))
        quiet = ("--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "2")
        return ("-m", "uvicorn", _CHAT_APP, *listen, *quiet)

    def _environment(self) -> dict[str, str]:
        """One environment for all children: this process's, the addresses of the wiring, and where each other is."""
        shared = {
            VARIABLES["home"]: str(self._home.folder),
            VARIABLES["database_url"]: self.settings.database_url,
            VARIABLES["aws_endpoint_url"]: self.engine_url,
            VARIABLES["secret_key"]: self.settings.secret_key,
            VARIABLES["engine_health_url"]: self._engine_health_url(),
            VARIABLES["workers_health_url"]: f"{self._workers_url}/healthz",
        }
        environment = {**os.environ, **shared, **self._wiring.environment(self._addresses())}
        if sys.dont_write_bytecode or sys.pycache_prefix:  # compiling everything at each start would take seconds
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            environment["PYTHONPYCACHEPREFIX"] = str(self._home.bytecode)
        return environment

    def _engine_health_url(self) -> str:
        """Empty for a configured engine that has no such page: then nobody asks."""
        url = self.engine_url + READY_PATH
        return url if not self._settings.aws_endpoint_url or answers(url) else ""

    def _addresses(self) -> dict[str, str]:
        region = self._settings.aws_region
        if not self._settings.aws_endpoint_url:
            return predicted_addresses(self._wiring, self.engine_url, region)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return provision(self._wiring, Aws(region, self.engine_url), region)
        except (BotoCoreError, ClientError) as error:
            raise StartError(f"the engine at AWS_ENDPOINT_URL cannot be used: {error}") from error

    def _await(self, keeper: Keeper) -> None:
        self._supervisor.wait_ready(keeper, _READY_TIMEOUT_S, self._interrupted)
        if not self._interrupted.is_set():
            self._progress(f"{keeper.service.name} is ready")

    def _seed(self, keepers: list[Keeper]) -> Facts:
        if keepers[0].service.name == "postgres":
            self._await(keepers.pop(0))
        if self._interrupted.is_set():
            return Facts(SeededKeys(None, None), "", "")
        facts = asyncio.run(self._seed_and_look())
        self._progress("seed data is in")
        return facts

    async def _seed_and_look(self) -> Facts:
        services = Services(self.settings)
        try:
            keys = await seed(services)
            model = services.gateway.default_model()
            route = next(one.routes[0] for one in services.gateway.models() if one.id == model)
        finally:
            await services.close()
        engine = "configured" if self._settings.aws_endpoint_url else "built in (moto, in memory)"
        is_real = route.provider != "offline"
        return Facts(keys, f"{model} ({route.provider}: {route.model})" if is_real else _NO_MODEL, engine)

    def _running(self) -> RunningStack:
        return RunningStack(os.getpid(), self.api_url, self.database_url, self.engine_url)

    def _progress(self, line: str) -> None:
        self._tell(f"{time.monotonic() - self._began:5.2f} s  {line}")


def migrate_configured(settings: Settings) -> list[str]:
    """Bring the schema at DATABASE_URL up to date; the migrations applied now. Raises StartError."""
    if not settings.migration_url:
        raise StartError("DATABASE_URL is not set; the built-in database is brought up to date by `daarion up`")
    try:
        login = conninfo_to_dict(settings.database_url).get("user")
        has_owner = bool(settings.database_migration_url)
        return migrate(settings.migration_url, runtime_login=str(login) if login and has_owner else None)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise StartError(f"the database at DATABASE_URL cannot be used: {reason}") from error
