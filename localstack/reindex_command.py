"""``daarion reindex``: works on the database itself; the running stack does the embedding."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

from shared.bootstrap import Services
from shared.memory.indexing.reindexing import Progress
from shared.settings import Settings

_POLL_S = 1.0


def reindex(settings: Settings, model: str, *, wait: bool, as_json: bool, tell: Callable[[str], None]) -> None:
    """Start a run, and follow it to its end if told to; ``tell`` gets a line of progress each time it changes.

    Raises Conflict while another run goes on, NotFound for an unknown model.
    """
    asyncio.run(_reindex(settings, model, wait, lambda progress: tell(render(progress, as_json))))


def render(progress: Progress, as_json: bool) -> str:
    """One line."""
    if as_json:
        return json.dumps(asdict(progress), default=str)
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = f", about {progress.eta_s:.0f} s left" if progress.eta_s else ""
    items = f"{progress.done} of {progress.total} items{failed}"
    return f"{progress.state}  {progress.progress:4.0%}  {items}  {progress.model}{left}"


async def _reindex(settings: Settings, model: str, wait: bool, tell: Callable[[Progress], None]) -> None:
    services = Services(settings)
    try:
        reindexing = services.memory.reindexing
        progress = await reindexing.start(model or None)
        tell(progress)
        while wait and progress.state == "running":
            await asyncio.sleep(_POLL_S)
            before, progress = progress, await reindexing.progress(progress.id)
            if (progress.done, progress.failed, progress.state) != (before.done, before.failed, before.state):
                tell(progress)
    finally:
        await services.close()
