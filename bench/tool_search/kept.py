"""An embedding model that remembers on disk what it has embedded, so that a second run takes no minutes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.memory.embedding.port import LocalModel, Purpose, Vector


class KeptModel:
    """The model, asked only for texts that are not in ``file``. :meth:`save` writes what is new."""

    def __init__(self, model: LocalModel, file: Path) -> None:
        self._model = model
        self._file = file
        self.name, self.dimensions, self.cosines = model.name, model.dimensions, model.cosines
        self._vectors: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
        self._new = False
        if file.exists():
            kept = np.load(file)
            self._vectors = dict(zip(json.loads(kept["texts"].tobytes()), kept["vectors"], strict=True))

    def prepare(self) -> None:
        """As the model."""
        self._model.prepare()

    def warm(self) -> None:
        """As the model."""
        self._model.warm()

    def embed(self, texts: Sequence[str], purpose: Purpose = "passage") -> list[Vector]:
        """One vector per text, in order."""
        missing = [text for text in dict.fromkeys(texts) if f"{purpose}: {text}" not in self._vectors]
        for text, vector in zip(missing, self._model.embed(missing, purpose), strict=True):
            self._vectors[f"{purpose}: {text}"] = np.array(vector, np.float32)
            self._new = True
        return [self._vectors[f"{purpose}: {text}"].tolist() for text in texts]

    def save(self) -> None:
        """Keep everything for the next run."""
        if self._new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            texts = np.frombuffer(json.dumps(list(self._vectors)).encode(), np.uint8)
            np.savez(self._file, texts=texts, vectors=np.array(list(self._vectors.values())))
            self._new = False
