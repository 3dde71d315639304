"""A secret that comes in pieces never leaves, and the pieces that leave make what the whole text would have become."""

import math
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Internal, InvalidRequest
from shared.llm.safety.policy import NamedPattern, SanitizePolicy
from shared.llm.safety.stream import DeltaSanitizer, StreamSanitizer
from shared.llm.safety.text import find_secrets, replace_spans, strip_hidden
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import chunk
from tests.unit.test_llm_sanitize import IN_CONTEXT, JWT, SECRETS

POLICY = SanitizePolicy(answers=True, detect_iban=True)
CONFIGURED = SanitizePolicy(answers=True, patterns=(NamedPattern("case", r"case [A-Z]{2,5} \d{2,9}\b"),))
PIECES = [
    *SECRETS.values(),
    *("".join(parts) for parts in IN_CONTEXT.values()),
    *(
        "\u200b",
        "\u200d",
        "é",
        "日本",
        "\x07",
        " ",
        "  ",
        "\n",
        "word",
        "4111 1111 ",
        "4111",
        "1111-",
        "bearer ",
        "password",
    ),
    *(
        " = ",
        '"',
        "sk-",
        "eyJ",
        "://",
        "-----",
        "-----BEGIN ",
        "-----END ",
        "PRIVATE KEY-----",
        "case AB 12",
        "case ",
        ".",
    ),
    *("DE89 3704 0044 0532 0130 00", "DE89 37", "AKIA", "x" * 40, "\r\n\r\n"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


def whole(text: str, policy: SanitizePolicy) -> str:
    clean = strip_hidden(text)
    return replace_spans(clean, find_secrets(clean, policy), 0, len(clean))


def streamed(pieces: list[str], policy: SanitizePolicy) -> list[str]:
    sanitizer = StreamSanitizer(policy)
    return [*(sanitizer.feed(piece) for piece in pieces), sanitizer.flush()]


def parts_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[first:last] for first, last in pairwise(places)]


@pytest.mark.parametrize(
    "parts", [*(("", secret) for secret in SECRETS.values()), *IN_CONTEXT.values()], ids=[*SECRETS, *IN_CONTEXT]
)
def test_every_split_point_of_every_secret(parts: tuple[str, ...]) -> None:
    secret, text = parts[1], f"before {''.join(parts)} after, and more"
    for cut in range(len(text) + 1):
        pieces = streamed([text[:cut], text[cut:]], POLICY)
        assert "".join(pieces) == whole(text, POLICY), cut
        assert secret[:16] not in "".join(pieces), cut


@pytest.mark.parametrize("before", ["_", "(", "é", "\\n", "4", "a"])
def test_an_account_number_after_any_character(before: str) -> None:
    text = f"{before}DE89 3704 0044 0532 0130 00"
    assert "".join(streamed(list(text), POLICY)) == whole(text, POLICY)


@pytest.mark.parametrize("policy", [POLICY, CONFIGURED], ids=["built-in", "configured"])
@settings(max_examples=400)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_any_text_in_any_pieces(policy: SanitizePolicy, text: str, cuts: list[int]) -> None:
    assert "".join(streamed(parts_of(text, cuts), policy)) == whole(text, policy)


@settings(max_examples=200)
@given(text=TEXTS)
def test_any_text_character_by_character(text: str) -> None:
    assert "".join(streamed(list(text), POLICY)) == whole(text, POLICY)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("4111 1111 4111 1111 1111 1111", "4111 1111 [redacted:card_number]"),
        ("AB12 3456 DE89 3704 0044 0532 0130 00", "AB12 3456 [redacted:iban]"),
    ],
)
def test_a_number_behind_groups_that_are_none(text: str, clean: str) -> None:
    assert whole(text, POLICY) == "".join(streamed(list(text), POLICY)) == clean


def test_prose_waits_for_its_word_only() -> None:
    sanitizer = StreamSanitizer(POLICY)
    assert [sanitizer.feed(piece) for piece in ("Hel", "lo there", ", you", " 日本", "語")] == [
        "",
        "Hello ",
        "there, ",
        "you 日本",
        "語",
    ]
    assert sanitizer.flush() == ""


def test_a_refusal_comes_before_the_secret() -> None:
    sanitizer = StreamSanitizer(SanitizePolicy(mode="refuse", answers=True))
    assert sanitizer.feed(f"it is {JWT[:30]}") == "it is "
    assert sanitizer.feed(JWT[30:]) == ""
    with pytest.raises(InvalidRequest, match=r"jwt \(1\)"):
        sanitizer.feed(" and")


def test_a_fault_ends_the_stream_unless_the_policy_is_open() -> None:
    broken = (NamedPattern("broken", "("),)
    with pytest.raises(Internal):
        streamed(["some text"], SanitizePolicy(answers=True, patterns=broken))
    assert (
        "".join(streamed(["some text"], SanitizePolicy(answers=True, patterns=broken, fail_closed=False)))
        == "some text"
    )


def deltas(policy: SanitizePolicy, *given_deltas: dict[str, Any]) -> tuple[AnswerAssembler, list[dict[str, Any]]]:
    sanitizer, answer = DeltaSanitizer(policy), AnswerAssembler()
    out = [*map(sanitizer.feed, given_deltas), *sanitizer.flush()]
    for delta in out:
        answer.feed(chunk("id", 1, "m", delta))
    return answer, out


def test_deltas_of_every_kind() -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "pay", "arguments": ""}}
    answer, out = deltas(
        POLICY,
        {"role": "assistant", "content": "", "refusal": None},
        {"reasoning_content": f"the key is {JWT[:9]}"},
        {"reasoning_content": JWT[9:]},
        {"content": "Paid with 4111 1111 "},
        {"content": "1111 1111"},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": f'{{"token": "{JWT[:40]}'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": f'{JWT[40:]}"}}'}}]},
    )
    assert out[0] == {"role": "assistant", "content": "", "refusal": None}
    assert out[2] == {}
    message = answer.message()
    assert message["content"] == "Paid with [redacted:card_number]"
    assert message["reasoning_content"] == "the key is [redacted:jwt]"
    assert message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"token": "[redacted:jwt]"}'}}
    ]


@pytest.mark.parametrize("text", ["sk-" + "a1" * 100_000, "x" * 200_000, "4111 " * 40_000, "word " * 40_000])
def test_the_time_of_a_stream_of_small_pieces_grows_with_its_length_alone(text: str) -> None:
    def seconds(characters: int) -> float:
        pieces = [text[at : at + 16] for at in range(0, characters, 16)]
        began = time.process_time()
        streamed(pieces, POLICY)
        return time.process_time() - began

    in_proportion, squared = 10, 100
    most = math.sqrt(in_proportion * squared) * min(seconds(len(text) // 10) for _ in range(3))
    assert seconds(len(text)) < max(most, 0.2)
