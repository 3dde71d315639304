"""What vectors of an embedding space are measured against. Pure.

A sentence embedder puts every text near some common direction, and a few texts near all others ("hubs", Radovanović et
al. 2010): a tool whose description sounds like any request is found for all of them. So a frame is fitted to a fixed
bank of requests and tools: their two means, and the direction in which requests differ most from each other whatever
they are about. Both are taken out of a vector before it is compared (centring and removing the first component: Mu and
Viswanath 2018, arXiv:1702.01417).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]


_TINY: Final = 1e-12
_PRIOR: Final = 40
"""So many tools of a catalogue weigh as much as the bank's."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The means [dimensions] of requests and of tools, and the direction [dimensions] of length 1 that is left out."""

    request_mean: "Matrix"
    tool_mean: "Matrix"
    direction: "Matrix"

    def requests(self, vectors: "Matrix") -> "Matrix":
        """Vectors of requests [n, dimensions] in the frame, of length 1."""
        centred = vectors - self.request_mean
        return unit(centred - np.outer(centred @ self.direction, self.direction))

    def mean_of(self, vectors: "Matrix", count: int) -> "Matrix":
        """The mean [dimensions] of a catalogue's tools: of ``count`` vectors (others being zero) and the bank's."""
        mean: Matrix = ((vectors.sum(axis=0) + _PRIOR * self.tool_mean) / (count + _PRIOR)).astype(np.float32)
        return mean

    def lengths(self, vectors: "Matrix", mean: "Matrix") -> "Matrix":
        """How long tools' vectors [n, dimensions] are in the frame [n]; without copying them."""
        squares = np.einsum("nd,nd->n", vectors, vectors) - 2 * (vectors @ mean) + mean @ mean
        squares -= (vectors @ self.direction - mean @ self.direction) ** 2
        lengths: Matrix = np.sqrt(np.maximum(squares, _TINY)).astype(np.float32)
        return lengths


def cosines(requests: "Matrix", tools: "Matrix", mean: "Matrix", lengths: "Matrix") -> "Matrix":
    """Cosines in the frame [tools, requests]. Requests are orthogonal to the direction that is left out, so that tools
    need not be freed of it."""
    products: Matrix = ((tools @ requests.T - requests @ mean) / lengths[:, None]).astype(np.float32)
    return products


def fit_frame(requests: "Matrix", tools: "Matrix") -> Frame:
    """The frame of a bank's vectors [n, dimensions]."""
    request_mean = requests.mean(axis=0)
    (direction, *_) = np.linalg.svd(requests - request_mean, full_matrices=False)[2]
    return Frame(request_mean, tools.mean(axis=0), direction.astype(np.float32))


def mean_view(views: "Matrix") -> "Matrix":
    """One vector of length 1 for all views [n, dimensions] of a tool."""
    mean: Matrix = unit(views.mean(axis=0, keepdims=True))[0]
    return mean


def unit(vectors: "Matrix") -> "Matrix":
    """The vectors [n, dimensions] at length 1; one without a direction stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Matrix = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
