"""The indexes of microDAOs' tools that this process keeps.

One statement a search asks the database what has changed; only that is read again. An index belongs to one microDAO,
was read under its row-level security, and is dropped when others need the memory.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from shared.db.database import Connection, Database
from shared.errors import NotFound
from shared.memory.embedding.spaces import Space
from shared.observability import Log
from shared.tools.search import store_search
from shared.tools.search.bank import BANK_HASH
from shared.tools.search.frame import Frame
from shared.tools.search.index import CatalogueIndex, empty_index, in_frame, next_index, with_vectors, with_words
from shared.tools.search.text import LEXICON
from shared.tools.search.words import add_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BYTES: Final = 192 * 2**20
"""What indexes may take together: about 100,000 tools with 384 numbers a vector."""

_MOST_AGENTS: Final = 64
_BYTES_A_MICRODAO: Final = 4096

_log = Log("tools")


class View(NamedTuple):
    """What one agent may be shown: the tools, the slots of its own (ascending), and how to look at requests."""

    catalogue: CatalogueIndex
    slots: "NDArray[np.intp]"
    frame: Frame | None


@dataclass(slots=True)
class _Kept:
    """A microDAO's index as of a state of its catalogue, in one space."""

    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    state: tuple[object, ...] = ()
    index: CatalogueIndex | None = None
    frame: Frame | None = None
    permitted: "dict[str, NDArray[np.intp]]" = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return (
            _BYTES_A_MICRODAO
            + sum(one.nbytes for one in self.permitted.values())
            + (self.index.size if self.index else 0)
        )


class Catalogues:
    """Indexes by microDAO, the ones searched last kept in ``most_bytes`` of memory."""

    def __init__(self, database: Database, most_bytes: int = MOST_BYTES) -> None:
        self._database = database
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of memory that indexes take, about."""
        return sum(one.size for one in self._kept.values())

    async def view(self, microdao_id: str, agent_id: str, space: Space) -> View:
        """What the agent may be shown now. Raises NotFound (agent)."""
        row = await store_search.read_state(self._database, microdao_id, agent_id, space.id, BANK_HASH)
        if not row.pop("is_known"):
            raise NotFound(f"no agent {agent_id!r} in this microDAO", param="agent_id")
        state = (space.id, *row.values())
        kept = self._kept.setdefault(microdao_id, _Kept())
        self._kept.move_to_end(microdao_id)
        if kept.state == state and kept.index is not None and agent_id in kept.permitted:
            return View(kept.index, kept.permitted[agent_id], kept.frame)
        async with kept.reading, self._database.tenant(microdao_id) as connection:
            view = await _read(connection, kept, agent_id, space, state)
        self._make_room()
        return view

    def _make_room(self) -> None:
        while self._kept and (size := self.size) > self._most_bytes:
            microdao_id, dropped = self._kept.popitem(last=False)
            if not self._kept:
                _log.warning("a catalogue is too large to be kept", microdao_id=microdao_id, bytes=dropped.size)
            else:
                _log.info("a catalogue made room for others", microdao_id=microdao_id, bytes=size)


async def _read(connection: Connection, kept: _Kept, agent_id: str, space: Space, state: tuple[object, ...]) -> View:
    """Bring what is kept up to date. The state was read before the rows: they are as new, or newer and read again."""
    index = kept.index
    if index is None or kept.state != state:
        if index is None or kept.state[0] != space.id:
            index, kept.frame = empty_index(space.dimensions), None
        kept.frame = kept.frame or await _read_frame(connection, space.id)
        index = await _updated(connection, index, kept.frame, space.id)
        kept.index, kept.state, kept.permitted = index, state, {}
    if len(kept.permitted) >= _MOST_AGENTS:
        kept.permitted.clear()
    entries = await store_search.read_permitted(connection, agent_id)
    slots = kept.permitted[agent_id] = index.slots_of(np.array(entries, np.int64))
    return View(index, slots, kept.frame)


async def _read_frame(connection: Connection, space_id: int) -> Frame | None:
    fields = await store_search.read_frame(connection, space_id, BANK_HASH)
    return Frame(**fields) if fields else None


async def _updated(connection: Connection, old: CatalogueIndex, frame: Frame | None, space_id: int) -> CatalogueIndex:
    """The index of what is active now; only what the old one lacks is read."""
    index = await asyncio.to_thread(next_index, old, await store_search.read_active(connection))
    if missing := index.without_words():
        words = await store_search.read_words(connection, LEXICON, missing)
        if len(words) < len(missing) and await add_words(connection):
            words = await store_search.read_words(connection, LEXICON, missing)
        index = await asyncio.to_thread(with_words, index, words)
    if frame:
        vectors = await store_search.read_vectors(connection, space_id, index.without_vector())
        index = await asyncio.to_thread(_placed, index, vectors, frame)
    return index


def _placed(index: CatalogueIndex, vectors: "dict[int, NDArray[np.float32]]", frame: Frame) -> CatalogueIndex:
    return in_frame(with_vectors(index, vectors), frame)
