"""XLM-R's tokenizer: the likeliest way to put each word together from 250,002 pieces (Kudo 2018, arXiv:1804.10959).

The pieces are kept as a trie in a file that is mapped, not loaded: 8 MB on disk of which the common pages come to
memory, where the ``tokenizers`` library would take 280 MB and 0.8 s for the same vocabulary. Characters are compared,
never encoded, so that no text can break it.
"""

import json
import unicodedata
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

START, END, UNKNOWN = 0, 2, 3
_SPECIAL = frozenset(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
"""Marks that are the model's alone: a text that spells them out is read as text."""
_SPACE = "▁"
_UNKNOWN_PENALTY = 10.0
"""How much less likely than the least likely piece a character outside the vocabulary is."""
_MAX_CHARACTERS = 8_000
_REMEMBERED_WORDS = 8_192
_LONGEST_REMEMBERED = 32  # so that odd texts cannot fill the memory
_NO_PIECE = -1


def write_vocabulary(folder: Path, pieces: list[str], scores: "NDArray[Any]", normalised: dict[int, str]) -> None:
    """Put the trie and the normalisation into ``folder``, an existing directory."""
    import numpy as np

    known = {piece: number for number, piece in enumerate(pieces) if piece not in _SPECIAL}
    np.save(folder / "trie.npy", _build_trie(known, scores))
    table = {"characters": {0: "", **normalised}, "unknown": float(scores.min()) - _UNKNOWN_PENALTY}
    (folder / "normalisation.json").write_text(json.dumps(table))


def _build_trie(known: dict[str, int], scores: "NDArray[Any]") -> "NDArray[Any]":
    """int32 [4, nodes]: last character, piece, first child, score (float32 bits).

    Nodes are sorted by depth and then by text, so the children of one node lie side by side, in order, and end where
    the next node's children begin.
    """
    import numpy as np

    nodes = sorted({piece[:end] for piece in known for end in range(len(piece) + 1)})
    nodes.sort(key=len)
    index = {prefix: number for number, prefix in enumerate(nodes)}
    parents = np.array([index[prefix[:-1]] for prefix in nodes[1:]])
    numbers = np.array([known.get(prefix, _NO_PIECE) for prefix in nodes])
    trie = np.zeros((4, len(nodes) + 1), dtype=np.int32)
    trie[0, 1:-1] = [ord(prefix[-1]) for prefix in nodes[1:]]
    trie[1, :-1] = numbers
    trie[2, 1:] = np.cumsum(np.bincount(parents, minlength=len(nodes)))
    trie[2] += 1  # the root's first child is node 1
    trie[3, :-1] = np.where(numbers >= 0, scores[numbers], 0).astype(np.float32).view(np.int32)
    return trie


class Tokenizer:
    """Texts into numbers of pieces, from the files that ``write_vocabulary`` made. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        trie = np.load(folder / "trie.npy", mmap_mode="r")
        self._characters, self._pieces, self._children = (memoryview(row) for row in trie[:3])
        self._scores = memoryview(trie[3].view(np.float32))
        table = json.loads((folder / "normalisation.json").read_text())
        self._unknown_score: float = table["unknown"]
        self._normalised = {int(code): text for code, text in table["characters"].items()}
        self._segment_remembered = lru_cache(_REMEMBERED_WORDS)(self._segment)

    def encode(self, text: str, limit: int) -> list[int]:
        """The text's pieces between start and end marks, ``limit`` at most in all; the rest is not seen."""
        numbers = [START]
        for word in self.normalise(text).split(" "):
            segment = self._segment_remembered if len(word) <= _LONGEST_REMEMBERED else self._segment
            numbers += segment(_SPACE + word)
            if len(numbers) >= limit:
                break
        return [*numbers[: limit - 1], END]

    def normalise(self, text: str) -> str:
        """As XLM-R reads it: compatible characters made one, controls dropped, words parted by single spaces."""
        composed = unicodedata.normalize("NFC", text[:_MAX_CHARACTERS])
        return " ".join(composed.translate(self._normalised)[:_MAX_CHARACTERS].split())

    def _segment(self, word: str) -> tuple[int, ...]:
        """The pieces whose scores have the greatest sum, found from the left (Viterbi)."""
        best: list[tuple[float, int, int]] = [(0.0, 0, 0), *[(float("-inf"), 0, 0)] * len(word)]
        for start in range(len(word)):
            so_far = best[start][0]
            if so_far + self._unknown_score > best[start + 1][0]:
                best[start + 1] = (so_far + self._unknown_score, start, UNKNOWN)
            for end, piece, score in self._pieces_at(word, start):
                if so_far + score > best[end][0]:
                    best[end] = (so_far + score, start, piece)
        return _trace_back(best)

    def _pieces_at(self, word: str, start: int) -> list[tuple[int, int, float]]:
        """Every piece that the word has at ``start``: where it ends, its number, its score."""
        characters, children = self._characters, self._children
        found: list[tuple[int, int, float]] = []
        node = 0
        for end, character in enumerate(word[start:], start + 1):
            code, last = ord(character), children[node + 1]
            node = bisect_left(characters, code, children[node], last)
            if node == last or characters[node] != code:
                break
            if self._pieces[node] != _NO_PIECE:
                found.append((end, self._pieces[node], self._scores[node]))
        return found


def _trace_back(best: list[tuple[float, int, int]]) -> tuple[int, ...]:
    numbers = []
    end = len(best) - 1
    while end:
        _score, end, number = best[end]
        numbers.append(number)
    return tuple(reversed(numbers))
