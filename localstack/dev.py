"""``daarion up``: start the embedded stack, say how to use it, keep it running until Ctrl-C or SIGTERM."""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from localstack.home import Home, StartError
from localstack.stack import Facts, Stack
from shared.errors import SettingError
from shared.settings import Settings, current_settings

EXIT_REFUSED = 2
READY_LINE = "DAARION ready"

_EARLIER = "shown at the first start; `{bin}daarion keys create{role}` makes another"
_FROM_ENVIRONMENT = "as set in {variable}"


def up(settings: Settings | None = None) -> int:
    """Run the stack; the exit code. 2 when something here must be changed first, with one line that says what."""
    interrupted = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: interrupted.set())
    try:
        settings = settings or current_settings()
        home = Home(settings.home)
        home.prepare()
        home.lock()
        try:
            return _run(settings, home, interrupted)
        finally:
            home.release()
    except (StartError, SettingError) as error:
        print(f"daarion: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED


def _run(settings: Settings, home: Home, interrupted: threading.Event) -> int:
    stack = Stack(settings, home, _tell)
    try:
        facts = stack.start(interrupted)
        if not interrupted.is_set():
            for line in summary(settings, stack, facts, home.folder):
                print(line)
            print(READY_LINE, flush=True)
            interrupted.wait()
    except (RuntimeError, TimeoutError) as error:
        raise StartError(f"{error} (logs: {home.logs})") from error
    finally:
        stack.stop()
    print("DAARION stopped", flush=True)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def summary(settings: Settings, stack: Stack, facts: Facts, folder: Path) -> list[str]:
    """The table and a call to copy, line by line."""
    api_key = facts.keys.api_key
    rows = {
        "API": stack.api_url,
        "Docs": f"{stack.api_url}/docs",
        "Database": "configured (DATABASE_URL)" if settings.database_url else f"built in, {folder}/postgres",
        "AWS engine": f"{facts.engine}, {stack.engine_url}",
        "Model": facts.model,
        "API key": api_key or _EARLIER.format(bin=_bin(), role=""),
        "Admin key": facts.keys.admin_key or _EARLIER.format(bin=_bin(), role=" --role admin --role operator"),
        "Logs": f"{folder}/logs",
    }
    if settings.api_key:
        rows["API key"] = _FROM_ENVIRONMENT.format(variable="DAARION_API_KEY")
    if settings.admin_key:
        rows["Admin key"] = _FROM_ENVIRONMENT.format(variable="DAARION_ADMIN_KEY")
    shown_key = "$DAARION_API_KEY" if settings.api_key or api_key is None else api_key
    return ["", *(f"  {name:<11} {value}" for name, value in rows.items()), "", *_call(stack.api_url, shown_key), ""]


def _bin() -> str:
    """Where the command is, as a person would type it: nothing when it is on the PATH."""
    command = Path(sys.executable).with_name("daarion")
    if shutil.which("daarion") == str(command):
        return ""
    return f"{os.path.relpath(command.parent)}/"


def _call(api_url: str, key: str) -> list[str]:
    return [
        f"  curl -N {api_url}/v1/chat/completions \\",
        f'    -H "authorization: Bearer {key}" -H "content-type: application/json" \\',
        """    -d '{"model": "sofia", "stream": true,"""
        """ "messages": [{"role": "user", "content": "What is 17 * 23?"}]}'""",
    ]


if __name__ == "__main__":
    sys.exit(up())
