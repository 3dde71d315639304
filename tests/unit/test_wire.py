"""Server-sent events and answers put together again."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import derived_id, new_id
from shared.wire import sse
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import chunk, new_usage, usage_chunk


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), min_size=1), max_size=5), st.integers(1, 7))
def test_events_survive_any_split(events: list[dict[str, str]], size: int) -> None:
    stream = sse.PING.join(sse.encode(event) for event in events) + sse.DONE
    decoder = sse.SseDecoder()
    decoded = [data for start in range(0, len(stream), size) for data in decoder.feed(stream[start : start + size])]
    assert [orjson.loads(data) for data in decoded[:-1]] == events
    assert decoded[-1] == b"[DONE]"


def test_crlf_and_comments() -> None:
    assert sse.SseDecoder().feed(b": hi\r\ndata: 1\r\n\r\ndata:2\r\n\r\n") == [b"1", b"2"]


def test_an_answer_with_parallel_calls() -> None:
    answer = AnswerAssembler()
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}
    deltas = [
        {"role": "assistant", "content": "Wait. "},
        {"reasoning_content": "because"},
        {"tool_calls": [first]},
        {"tool_calls": [second]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": ": 1}"}}]},
    ]
    texts = [answer.feed(chunk("id", 0, "m", delta)) for delta in deltas]
    answer.feed(chunk("id", 0, "m", {}, "tool_calls"))
    answer.feed(usage_chunk("id", 0, "m", new_usage(3, 4)) | {"daarion": {"cost_microusd": 9}})
    assert "".join(texts) == "Wait. "
    assert answer.message() == {
        "role": "assistant",
        "content": "Wait. ",
        "reasoning_content": "because",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x": 1}'}},
        ],
    }
    assert (answer.finish_reason, answer.cost_microusd, answer.usage) == ("tool_calls", 9, new_usage(3, 4))


def test_ids_sort_by_time_and_derive_from_their_parts() -> None:
    ids = [new_id("flow") for _ in range(3)]
    assert len(set(ids)) == 3
    assert ids[0][:13] <= ids[2][:13]
    assert derived_id("use", "a", "b") == derived_id("use", "a", "b") != derived_id("use", "ab")
    alike = [("a\x1f", "b"), ("a", "\x1fb"), ("a", "", "b"), ("a\x1b1", "b"), ("a", "\x1b1b"), ("a", "b"), ("a\x1fb",)]
    assert len({derived_id("use", *parts) for parts in alike}) == len(alike)
