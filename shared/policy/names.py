"""The names that the platform's source documents give to actions, as ours."""

import re
from typing import Final

_TOOL = re.compile(r"tool\.(?P<name>.+)\.invoke")
_NAMED: Final = {"tool.llm.invoke": "llm.invoke", "agent.run.invoke": "agent.run"}


def own_action(action: str) -> tuple[str, str | None]:
    """Our action, and the tool that the name of it holds: ``tool.task.create.invoke`` → ``tool.invoke``,
    ``task.create``."""
    if action in _NAMED:
        return _NAMED[action], None
    match = _TOOL.fullmatch(action)
    return ("tool.invoke", match["name"]) if match else (action, None)
