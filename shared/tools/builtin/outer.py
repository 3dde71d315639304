"""The built-in functions that run outside the execution's transaction, because they need memory or a model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.db.database import Database
from shared.tools.builtin.channels import ChannelSummaries, ModelOf
from shared.tools.builtin.documents import Documents
from shared.tools.builtin.memories import Memories

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway
    from shared.memory.memory import Memory
    from shared.tools.ports import OuterExecutor


def open_outer_builtins(
    database: Database, memory: "Callable[[], Memory]", gateway: "Callable[[], Gateway]", model_of: ModelOf
) -> "dict[str, OuterExecutor]":
    """By the names of ``OUTER_BUILTINS``. Memory and gateway are opened when a tool first needs them."""
    documents, memories = Documents(database, memory), Memories(memory)
    return {
        "search_docs": documents.search,
        "document.create": documents.create,
        "memory.search": memories.search,
        "memory.store": memories.store,
        "summarize_channel": ChannelSummaries(memory, gateway, model_of).summarize,
    }
