"""The command line: ``daarion up | reset | migrate | chat | doctor | reindex | keys``. Imports come late."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from localstack.home import Home, RunningStack, StartError
from shared.errors import ApiError, SettingError
from shared.settings import VARIABLES, Settings, current_settings

app = typer.Typer(
    name="daarion",
    help="Run DAARION on this machine and talk to it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="API keys of the running stack.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys_app, name="keys")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MicroDao = Annotated[str, typer.Option("--microdao", help="Whose keys.")]

_MICRODAO = "microdao:daarion"


@app.command()
def up() -> None:
    """Start everything and keep it running (Ctrl-C stops it)."""
    from localstack.dev import up as run

    raise typer.Exit(run())


@app.command()
def reset() -> None:
    """Delete the data folder; refused while a stack runs on it."""
    home = Home(_settings().home)
    print(f"deleted {home.folder}" if home.delete() else f"there is no {home.folder}")


@app.command()
def migrate() -> None:
    """Bring the schema of DATABASE_URL up to date (`up` does it by itself)."""
    from localstack.stack import migrate_configured

    print("\n".join(migrate_configured(_settings())) or "the schema is up to date")


@app.command()
def chat(
    message: Annotated[str, typer.Argument(help="What to say; without it a conversation starts.")] = "",
    model: Annotated[str, typer.Option(help="A blueprint, a session or a logical model.")] = "sofia",
    url: Annotated[str, typer.Option(help="The API, when it is not the stack of this folder.")] = "",
) -> None:
    """Talk to an agent; the answer streams."""
    import asyncio

    from localstack.conversation import converse

    asyncio.run(converse(message, model, url or _running().api_url, reachable_settings() if not url else _settings()))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check everything a stack needs; exit code 1 when something is amiss."""
    import asyncio

    from localstack.doctor import examine, render

    findings = asyncio.run(examine(_settings()))
    print(render(findings, as_json))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def reindex(
    model: Annotated[str, typer.Option(help="An embedding model; without it the configured one.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed all memory anew while it stays in use; the running stack does the work within a minute."""
    from localstack.reindex_command import reindex as run

    run(reachable_settings(), model, wait=wait, as_json=as_json, tell=print)


@keys_app.command("list")
def list_keys(microdao: MicroDao = _MICRODAO, as_json: AsJson = False) -> None:
    """Every key: id, name, roles, last characters."""
    from localstack.keys_commands import list_all

    print(list_all(reachable_settings(), microdao, as_json))


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="To tell it from others.")] = "made on the command line",
    role: Annotated[list[str] | None, typer.Option(help="member, admin, operator …; repeat for several.")] = None,
    microdao: MicroDao = _MICRODAO,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it this once."""
    from localstack.keys_commands import create

    print(create(reachable_settings(), microdao, role or ["member"], name, as_json))


@keys_app.command("revoke")
def revoke_key(key_id: str, microdao: MicroDao = _MICRODAO, as_json: AsJson = False) -> None:
    """Make a key worthless at once."""
    from localstack.keys_commands import revoke

    print(revoke(reachable_settings(), microdao, key_id, as_json))


def reachable_settings() -> Settings:
    """Settings with which this process reaches the running stack's database. Raises StartError when none runs."""
    home = Home(_settings().home)
    found = {} if _settings().database_url else {VARIABLES["database_url"]: _running().database_url}
    if not _settings().secret_key:
        found[VARIABLES["secret_key"]] = home.secret_key
    os.environ.update(found)
    current_settings.cache_clear()
    return current_settings()


def _settings() -> Settings:
    return current_settings()


def _running() -> RunningStack:
    folder = _settings().home
    running = Home(folder).running()
    if running is None:
        raise StartError(f"no stack runs on {folder.absolute()}; start one with `daarion up`")
    return running


def _keep_bytecode() -> None:
    """Where Python is told not to write compiled modules, a stack keeps its own: it starts seconds faster."""
    if sys.dont_write_bytecode and sys.argv[1:] == ["up"]:
        folder = os.environ.get(VARIABLES["home"]) or ".daarion"
        sys.pycache_prefix = str(Home(Path(folder)).bytecode)
        sys.dont_write_bytecode = False


def main() -> NoReturn:
    """The entry point. Faults of use and of this machine are one line and exit code 2, refusals exit code 1."""
    _keep_bytecode()
    try:
        app()
    except (StartError, SettingError) as error:
        _fail(str(error), 2)
    except ApiError as error:
        _fail(error.message, 1)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"daarion: {message}", file=sys.stderr)
    sys.exit(code)
