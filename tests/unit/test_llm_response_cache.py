"""Which answers may be kept, what makes two questions the same, and how a kept answer is streamed."""

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.llm.answers.response_cache import cache_key, replay_chunks, wanted_ttl
from shared.llm.caller import Caller
from shared.llm.safety.policy import SanitizePolicy
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest, completion, new_usage

CALLER = Caller(microdao_id="microdao:a", session_id="sess_1")
PLAIN = SanitizePolicy()


def request(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "smart", "messages": [{"role": "user", "content": "hello"}], **more})


@pytest.mark.parametrize(
    ("metadata", "ttl"),
    [
        (None, None),
        ({}, None),
        ({"cache": False}, None),
        ({"cache": None}, None),
        ({"cache": True}, 3600),
        ({"cache": {"ttl_s": 5}}, 5),
        ({"cache": {"ttl_s": 604800}}, 604800),
    ],
)
def test_wishes(metadata: dict | None, ttl: int | None) -> None:
    assert wanted_ttl(request(metadata=metadata), CALLER) == ttl


@pytest.mark.parametrize("wish", [{"ttl_s": 0}, {"ttl_s": 604801}, {"ttl_s": True}, {"ttl_s": 1.5}, {}, "yes", 1, [1]])
def test_bad_wishes(wish: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wanted_ttl(request(metadata={"cache": wish}), CALLER)
    assert caught.value.param == "metadata.cache"


def test_confidential_answers_are_never_kept() -> None:
    confidential = Caller(microdao_id="microdao:a", confidential=True)
    assert wanted_ttl(request(metadata={"cache": True}), confidential) is None


def key(asked: ChatRequest, caller: Caller = CALLER, policy: SanitizePolicy = PLAIN) -> bytes:
    return cache_key(asked, caller, policy).digest


def test_the_same_question_however_it_comes() -> None:
    usual = key(request())
    assert key(request(stream=True, stream_options={"include_usage": True}, metadata={"cache": True})) == usual
    assert key(request(user="ann", temperature=None)) == usual
    assert key(request(), Caller(microdao_id="microdao:a", session_id="sess_2")) == usual
    one, other = {"b": 1, "a": {"y": 2, "x": 3}}, {"a": {"x": 3, "y": 2}, "b": 1}
    assert key(request(response_format=one)) == key(request(response_format=other))


@pytest.mark.parametrize(
    "more",
    [
        {"model": "cheap"},
        {"temperature": 0},
        {"max_tokens": 5},
        {"top_p": 0.5},
        {"seed": 1},
        {"tools": [{"type": "function", "function": {"name": "add"}}]},
        {"messages": [{"role": "user", "content": "hello "}]},
        {"messages": [{"role": "system", "content": "hello"}]},
    ],
)
def test_another_question(more: dict) -> None:
    assert key(request(**more)) != key(request())


def test_what_is_taken_out_of_answers_is_part_of_the_question() -> None:
    assert key(request(), policy=SanitizePolicy(answers=True)) != key(request())
    assert key(request(), policy=SanitizePolicy(mode="refuse")) == key(request())


def test_chunks_make_the_answer_again() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]
    message = {"content": "word " * 50, "reasoning_content": "because " * 20, "tool_calls": calls}
    made = completion("chatcmpl-1", 7, "smart", message, "tool_calls", new_usage(5, 60))
    chunks = list(replay_chunks(made | {"daarion": {"cached": True, "cost_microusd": 0}}))
    answer = AnswerAssembler()
    for one in chunks:
        answer.feed(one)
    assert answer.message() == {"role": "assistant", **message}
    assert (answer.finish_reason, answer.usage, answer.cost_microusd) == ("tool_calls", new_usage(5, 60), 0)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["daarion"]["cached"]
    assert {(one["id"], one["created"], one["model"]) for one in chunks} == {("chatcmpl-1", 7, "smart")}
    assert all(len(one["choices"][0]["delta"].get("content") or "") <= 64 for one in chunks[:-1])
