"""Which embedders this process uses."""

from functools import cache
from pathlib import Path

from shared.memory.embedding.port import LocalModel
from shared.settings import Settings


def open_local_model(settings: Settings) -> LocalModel:
    """This process's model: one for all who ask, because it takes 60 MB."""
    return _shared(settings.home / "models")


@cache
def _shared(models: Path) -> LocalModel:
    from shared.memory.embedding.e5 import MultilingualE5

    return MultilingualE5(models)
