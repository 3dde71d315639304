"""Which embedder this process uses."""

from functools import cache
from pathlib import Path

from shared.memory.embedding import Embedder
from shared.settings import Settings


def open_embedder(settings: Settings) -> Embedder:
    """This process's embedder: one for all who ask, because its model takes 100 MB."""
    return _shared(settings.home / "models")


@cache
def _shared(models: Path) -> Embedder:
    from shared.memory.minilm import MiniLM

    return MiniLM(models)
