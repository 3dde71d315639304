"""Which embedders this process uses."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from shared.db.database import Database
from shared.memory.embedding.caches import KeptEmbedder
from shared.memory.embedding.port import Embedder, LocalEmbedder, LocalModel
from shared.memory.embedding.provider import ProviderEmbedder
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway


class Embedders:
    """The models that this process can embed with: local ones, and logical models that the gateway has a route for.

    ``configured`` names the one that memories are to be embedded with; empty means the local one.
    """

    def __init__(
        self,
        local: Embedder,
        *others: Embedder,
        provider: Callable[[str], Embedder | None] = lambda model: None,
        configured: str = "",
    ) -> None:
        self.local = local
        self.configured = configured or local.model
        self._provider = provider
        self._known: dict[str, Embedder] = {one.model: one for one in (local, *others)}

    def find(self, model: str) -> Embedder | None:
        """The embedder of this name; None when it cannot be used here (now)."""
        if model not in self._known and (found := self._provider(model)):
            self._known[model] = found
        return self._known.get(model)


def open_embedders(settings: Settings, database: Database, gateway: "Callable[[], Gateway] | None" = None) -> Embedders:
    """The embedders of this process; without a gateway the local one only."""

    def provider(model: str) -> Embedder | None:
        if gateway is None or not gateway().knows(model, "embedding"):
            return None
        return KeptEmbedder(ProviderEmbedder(gateway, model), database)

    local = LocalEmbedder(open_local_model(settings))
    return Embedders(local, provider=provider, configured=settings.embedding_model)


def open_local_model(settings: Settings) -> LocalModel:
    """This process's model: one for all who ask, because it takes 60 MB."""
    return _shared(settings.home / "models")


@cache
def _shared(models: Path) -> LocalModel:
    from shared.memory.embedding.e5 import MultilingualE5

    return MultilingualE5(models)
