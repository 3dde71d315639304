"""The ONNX graph of multilingual-e5-small, without its word table.

The table's 250,037 rows would take 384 MB as fp32, so the caller looks up the few that a text needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.memory.embedding.bert_graph import BertGraph, Sizes, embed
from shared.memory.embedding.e5_weights import dequantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH_VERSION = 1
"""Raise it when the graph, its quantisation or the vocabulary's file changes: built folders carry it in their names."""
DIMENSIONS = 384
MAX_TOKENS = 512
WORDS = "embeddings.word_embeddings.weight"

_SIZES = Sizes(layers=12, heads=12, dimensions=DIMENSIONS, tokens=MAX_TOKENS)
_LEAST_ACTIVATION = 0.5  # of a unit that the weights say never fires: it may be wrong


def build_graph(tensors: "dict[str, NDArray[Any]]") -> Any:
    """The fp32 model: ``words`` float32 [1, tokens, 384], rows of the word table → ``embedding`` float32 [1, 384]."""
    from onnx import TensorProto, helper

    exact = {name: dequantise(it) if it.dtype.names else it for name, it in tensors.items() if name != WORDS}
    graph = _BalancedGraph(exact, _SIZES)
    embed(graph, "words")
    given = helper.make_tensor_value_info("words", TensorProto.FLOAT, [1, "tokens", DIMENSIONS])
    return graph.model("multilingual-e5-small", given)


def write_graph(file: Path, tensors: "dict[str, NDArray[Any]]") -> None:
    """Put the int8 model (23 MB) at ``file``, quantised as bert_graph does.

    The weights go into a file beside it, which onnxruntime maps: 20 MB less stay in memory than if it parsed them.
    """
    from onnxruntime.quantization import quantize_dynamic

    graph = build_graph(tensors)
    quantize_dynamic(graph, file, per_channel=True, reduce_range=True, use_external_data_format=True)
    file.with_name(f"{file.name}.data").chmod(file.stat().st_mode)  # onnx lets only the owner read it


class _BalancedGraph(BertGraph):
    """Divides the inputs of the feed-forward layers by the size each may reach, and multiplies the weights by it.

    The result is the same, but no longer do a few large inputs spoil the one scale that int8 has for all of them
    (the idea of SmoothQuant, arXiv:2211.10438): the mean cosine to fp32 rises from 0.996 to 0.999.
    """

    def linear(self, value: str, name: str) -> str:
        """x·Wᵀ + b."""
        layer, _, part = name.rpartition(".layer.")[2].partition(".")
        if part not in ("intermediate.dense", "output.dense"):
            return super().linear(value, name)
        sizes = self._sizes_of_inputs(f"encoder.layer.{layer}", part)
        matrix = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T * sizes[:, None])
        value = self.node("Mul", value, self.constant(f"{name}.balance", 1 / sizes))
        return self.node("Add", self.node("MatMul", value, matrix), self.weight(f"{name}.bias"))

    def _sizes_of_inputs(self, layer: str, part: str) -> "NDArray[Any]":
        """How large the inputs get, float32, told from the weights alone: what leaves a LayerNorm is about normal.

        Summed in fp64, so that every machine comes to the same fp32.
        """
        import numpy as np

        norm, widening = f"{layer}.attention.output.LayerNorm", f"{layer}.intermediate.dense"
        deviation, mean, matrix, bias = (
            self.weights[name].astype(np.float64)
            for name in (f"{norm}.weight", f"{norm}.bias", f"{widening}.weight", f"{widening}.bias")
        )
        reached: NDArray[Any] = np.abs(mean) + 3 * np.abs(deviation)
        if part == "output.dense":
            widened = matrix @ mean + bias + 4 * np.linalg.norm(matrix * deviation, axis=1)
            reached = np.maximum(widened, _LEAST_ACTIVATION)
        return reached.astype(np.float32)
