"""Vectors that need not be made again: of recent questions in this process, of paid texts in the database."""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256

from shared.db.database import Database
from shared.memory.embedding import store_embedding_cache
from shared.memory.embedding.port import Embedder, Purpose, Vector
from shared.memory.embedding.provider import TEXTS_A_CALL

_QUERIES = 2048
"""3 MB for 384 numbers a vector, 12 MB for 1536."""

_Key = tuple[str, int, Purpose, bytes]


class RecentVectors:
    """The vectors of the texts that were asked for last, the same whoever asked. At most ``size`` of them."""

    def __init__(self, size: int = _QUERIES) -> None:
        self._size = size
        self._vectors: OrderedDict[_Key, array[float]] = OrderedDict()

    async def embed(self, embedder: Embedder, dimensions: int, text: str, purpose: Purpose, microdao_id: str) -> Vector:
        """The remembered vector of this length, or a new one. Raises as the embedder does."""
        key = embedder.model, dimensions, purpose, text_hash(text)
        if key not in self._vectors:
            (vector,) = await embedder.embed([text], purpose, microdao_id)
            if len(vector) != dimensions:
                return vector
            self._vectors[key] = array("f", vector)
            if len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
        else:
            self._vectors.move_to_end(key)
        return self._vectors[key].tolist()


class KeptEmbedder:
    """An embedder that costs money, asked only for what the microDAO has not paid for under the same model before.

    What it answers is kept at once: who dies before using it does not pay again.
    """

    def __init__(self, embedder: Embedder, database: Database) -> None:
        self._embedder = embedder
        self._database = database
        self.model = embedder.model
        self.cosines = embedder.cosines
        self.is_at_hand = False

    async def dimensions(self, microdao_id: str = "") -> int:
        """Numbers in a vector, as the model makes them now; vectors of another length are kept no longer."""
        found = await self._embedder.dimensions(microdao_id)
        async with self._database.system() as connection:
            await store_embedding_cache.drop_others(connection, self.model, found)
        return found

    async def prepare(self) -> None:
        """Build what the embedder needs."""
        await self._embedder.prepare()

    async def warm(self) -> None:
        """Load what the first call would load."""
        await self._embedder.warm()

    async def embed(self, texts: Sequence[str], purpose: Purpose, microdao_id: str) -> list[Vector]:
        """One vector per text, in order; ``microdao_id`` pays for new ones. Raises as the embedder does."""
        hashes = {text_hash(text): text for text in texts}
        async with self._database.tenant(microdao_id) as connection:
            known = await store_embedding_cache.read(connection, self.model, purpose, list(hashes))
        missing = [digest for digest in hashes if digest not in known]
        for start in range(0, len(missing), TEXTS_A_CALL):
            batch = missing[start : start + TEXTS_A_CALL]
            vectors = await self._embedder.embed([hashes[digest] for digest in batch], purpose, microdao_id)
            made = dict(zip(batch, vectors, strict=True))
            async with self._database.tenant(microdao_id) as connection:
                await store_embedding_cache.keep(connection, self.model, purpose, made)
            known |= made
        return [known[text_hash(text)] for text in texts]


def text_hash(text: str) -> bytes:
    """SHA-256 of the text in UTF-8."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
