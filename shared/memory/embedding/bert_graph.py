"""Builds ONNX graphs of BERT encoders that make sentence vectors, so that PyTorch is never needed.

The network is BERT (Devlin et al. 2019, arXiv:1810.04805, post-norm, erf GELU) with mean pooling and L2 normalisation
(Reimers and Gurevych 2019, arXiv:1908.10084). A graph takes one text at a time, so it needs neither padding nor a
mask and a text's vector never depends on its neighbours in a batch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYER_NORM_EPSILON = 1e-12
_OPSET = 20  # the first with Gelu


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large an encoder is; ``tokens`` is the longest text that it shall see."""

    layers: int
    heads: int
    dimensions: int
    tokens: int


class BertGraph:
    """Nodes and constants being gathered; each method returns the name of what it added.

    ``weights`` are the tensors by the names that BERT's authors gave them.
    """

    def __init__(self, weights: "dict[str, NDArray[Any]]", sizes: Sizes) -> None:
        self.weights = weights
        self.sizes = sizes
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """An operation; its output is named after it if need be."""
        from onnx import helper

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: "NDArray[Any]") -> str:
        """A tensor, kept once however often it is asked for."""
        import numpy as np
        from onnx import numpy_helper

        if name not in {constant.name for constant in self.constants}:
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """A constant of whole numbers, as shapes and axes are."""
        import numpy as np

        return self.constant(name, np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        """A weight as it is stored."""
        return self.constant(name, self.weights[name])

    def linear(self, value: str, name: str) -> str:
        """x·Wᵀ + b: the stored matrices are [out, in]."""
        matrix = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        return self.node("Add", self.node("MatMul", value, matrix), self.weight(f"{name}.bias"))

    def layer_norm(self, value: str, name: str) -> str:
        """Mean 0 and variance 1 of each token, then the layer's own scale and shift."""
        return self.node(
            "LayerNormalization",
            value,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            axis=-1,
            epsilon=_LAYER_NORM_EPSILON,
        )

    def model(self, name: str, given: Any) -> Any:
        """The finished ONNX model from ``given``, the value info of its input, to ``embedding``."""
        from onnx import TensorProto, helper

        vector = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, self.sizes.dimensions])
        graph = helper.make_graph(self.nodes, name, [given], [vector], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)


def embed(graph: BertGraph, words: str) -> None:
    """From ``words``, float32 [1, tokens, dimensions], to ``embedding``, float32 [1, dimensions] of length 1."""
    hidden = _place(graph, words)
    for layer in range(graph.sizes.layers):
        hidden = _encode(graph, hidden, f"encoder.layer.{layer}")
    pooled = graph.node("ReduceMean", hidden, graph.integers("token_axis", [1]), keepdims=0)
    graph.node("LpNormalization", pooled, output="embedding", axis=1, p=2)


def _place(graph: BertGraph, words: str) -> str:
    """Word + position + segment, normalised. There is one segment, so its row is added to the positions beforehand."""
    tables = {name: graph.weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type")}
    positions = graph.constant("positions", tables["position"][: graph.sizes.tokens] + tables["token_type"][0])
    tokens = graph.node("Shape", words, start=1, end=2)
    used = graph.node("Slice", positions, graph.integers("first", [0]), tokens, graph.integers("rows", [0]))
    return graph.layer_norm(graph.node("Add", words, used), "embeddings.LayerNorm")


def _encode(graph: BertGraph, hidden: str, layer: str) -> str:
    """One encoder layer: attention and feed-forward, each added to its input and normalised."""
    attended = graph.linear(_attend(graph, hidden, layer), f"{layer}.attention.output.dense")
    hidden = graph.layer_norm(graph.node("Add", hidden, attended), f"{layer}.attention.output.LayerNorm")
    widened = graph.node("Gelu", graph.linear(hidden, f"{layer}.intermediate.dense"), approximate="none")
    narrowed = graph.linear(widened, f"{layer}.output.dense")
    return graph.layer_norm(graph.node("Add", hidden, narrowed), f"{layer}.output.LayerNorm")


def _attend(graph: BertGraph, hidden: str, layer: str) -> str:
    """softmax(q·kᵀ / √d)·v for every head; heads laid side by side."""
    import numpy as np

    query = _heads(graph, hidden, f"{layer}.attention.self.query", [0, 2, 1, 3])
    key = _heads(graph, hidden, f"{layer}.attention.self.key", [0, 2, 3, 1])
    value = _heads(graph, hidden, f"{layer}.attention.self.value", [0, 2, 1, 3])
    head_dimensions = graph.sizes.dimensions // graph.sizes.heads
    scale = graph.constant("attention_scale", np.array(head_dimensions**-0.5, dtype=np.float32))
    scores = graph.node("Mul", graph.node("MatMul", query, key), scale)
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    rows = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.node("Reshape", rows, graph.integers("joined_shape", [1, -1, graph.sizes.dimensions]))


def _heads(graph: BertGraph, hidden: str, name: str, order: list[int]) -> str:
    """A projection split into heads, its axes (text, token, head, dimension) put in ``order``."""
    heads = graph.sizes.heads
    shape = graph.integers("heads_shape", [1, -1, heads, graph.sizes.dimensions // heads])
    return graph.node("Transpose", graph.node("Reshape", graph.linear(hidden, name), shape), perm=order)
