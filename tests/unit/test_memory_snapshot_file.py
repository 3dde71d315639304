"""The file of a snapshot: what was written is read again, and nothing else is taken."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.chat.bodies import MAX_RAW_BYTES, RAW_TYPES
from shared.errors import InvalidRequest, TooLarge
from shared.memory.model import TIERS
from shared.memory.snapshots import file as snapshot_file
from shared.memory.snapshots.file import MAX_BYTES, MAX_ITEMS, MEDIA_TYPE, FileWriter, read_file, seal

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def item(**fields):
    line = {
        "kind": "item", "id": "mem_1", "tier": "mid_term", "content": {"text": "tea"}, "source": None,
        "channel_id": None, "session_id": None, "document_id": None, "position": None, "importance": 0.5,
        "occurred_at": "2026-05-01T12:00:00Z", "expires_at": None, "created_at": "2026-05-01T12:00:00+02:00",
        "summary_id": None,
    }  # fmt: skip
    return line | fields


def document(**fields):
    line = {
        "kind": "document", "id": "doc_1", "title": "Tea", "source": None, "media_type": "text/plain",
        "content_hash": "ab" * 32, "characters": 3, "chunks": 1, "metadata": {}, "created_at": "2026-05-01T12:00:00Z",
    }  # fmt: skip
    return line | fields


def file_of(*lines, **manifest):
    """A sound seal around whatever lines."""
    documents = len([line for line in lines if isinstance(line, dict) and line["kind"] == "document"])
    first = {
        "kind": "manifest", "format": "daarion-memory", "version": 1, "created_at": "2026-05-01T12:00:00Z",
        "microdao_id": "m", "agent_id": "a", "documents": documents, "items": len(lines) - documents,
    } | manifest  # fmt: skip
    return seal([line if isinstance(line, bytes) else orjson.dumps(line) for line in (first, *lines)])


SOUND = file_of(
    document(),
    item(document_id="doc_1", position=0),
    item(id="mem_2", summary_id="mem_3", content={"user_message": "чай?", "agent_reply": "так"}),
    item(id="mem_3", expires_at="2027-05-01T12:00:00Z"),
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
moments = st.datetimes(
    datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC) | st.just(timezone(timedelta(hours=3)))
)
keys = st.none() | texts
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, lambda inner: st.lists(inner, max_size=3)
)
items = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(TIERS),
        "content": st.dictionaries(texts, values, max_size=4),
        "source": keys, "channel_id": keys, "session_id": keys,
        "importance": st.floats(0, 1),
        "occurred_at": moments, "created_at": moments, "expires_at": st.none() | moments,
    }
)  # fmt: skip


@given(st.lists(items, max_size=5), texts)
def test_what_was_written_is_read_again(wanted, agent_id):
    writer = FileWriter()
    lines = [item(**fields, id=f"mem_{number}") for number, fields in enumerate(wanted)]
    for line in lines:
        writer.add("item", orjson.dumps(line))
    data = writer.finish("microdao:a", agent_id, NOON)
    read = read_file(data).items
    assert [one.id for one in read] == [line["id"] for line in lines]
    assert [one.line for one in read] == [number + 2 for number in range(len(lines))]
    for one, fields in zip(read, wanted, strict=True):
        assert {name: getattr(one, name) for name in fields} == fields


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_any_changed_byte_is_found(place, change):
    broken = bytearray(SOUND)
    broken[place] ^= change
    with pytest.raises(InvalidRequest):
        read_file(bytes(broken))


def test_any_missing_or_added_byte_is_found():
    assert len(read_file(SOUND).items) == 3
    for length in range(len(SOUND)):
        with pytest.raises(InvalidRequest):
            read_file(SOUND[:length])
    for broken in (SOUND + b"\n", SOUND + b" ", b"\xef\xbb\xbf" + SOUND, SOUND.replace(b"\n", b"\r\n"), SOUND + SOUND):
        with pytest.raises(InvalidRequest):
            read_file(broken)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    with pytest.raises(InvalidRequest):
        read_file(data)


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=4))
def test_sealed_garbage_is_refused_with_its_line(lines):
    data = file_of(*lines)
    if lines:
        with pytest.raises(InvalidRequest, match=r"^line 2 "):
            read_file(data)
    else:
        assert read_file(data).items == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"{"], "line 2 is not valid JSON"),
        ([item(), b"[]"], "line 3 must be a JSON object"),
        ([item(), b"[" * 300 + b"]" * 300], "line 3"),
        ([item(x=1)], "line 2: the format has no field 'x'"),
        ([item(content=orjson.Fragment(b'{"a":' * 70 + b"1" + b"}" * 70))], "line 2 is nested too deep"),
        ([item(content={"text": "a\0b"})], "line 2 holds a NUL"),
        ([{"kind": "item", "id": "mem_1"}], "line 2: the field 'tier' is missing"),
        ([item(tier="eternal")], "line 2: tier must be one of short_term"),
        ([item(id="")], "line 2: id must be text of 1 to 600"),
        ([item(id="a" * 601)], "line 2: id must be text of 1 to 600"),
        ([item(id=7)], "line 2: id must be text"),
        ([item(session_id="a" * 601)], "line 2: session_id must be text"),
        ([item(source="a" * 10_001)], "line 2: source must be text"),
        ([item(content=[])], "line 2: content must be an object"),
        ([item(importance=2)], "line 2: importance must be a number from 0 to 1"),
        ([item(importance=True)], "line 2: importance must be"),
        ([item(importance="1")], "line 2: importance must be"),
        ([item(occurred_at="2026-05-01T12:00:00")], "line 2: occurred_at must be a time with its zone"),
        ([item(occurred_at="0001-01-01T00:00:00+14:00")], "line 2: occurred_at must be a time"),
        ([item(occurred_at=5)], "line 2: occurred_at must be a time"),
        ([item(occurred_at=None)], "line 2: occurred_at must be a time"),
        ([item(position=-1, document_id="doc_1")], "line 2: position must be a whole number"),
        ([item(position=2**31, document_id="doc_1")], "line 2: position must be a whole number"),
        ([item(), item()], "line 3: the same stands in a line before"),
        ([document(), document()], "line 3: the same"),
        ([document(), document(id="doc_2")], "line 3: the same"),
        ([document(), *(item(id=one, document_id="doc_1", position=0) for one in "ab")], "line 4: the same"),
        ([document(content_hash="ab")], "line 2: content_hash must be a SHA-256"),
        ([document(content_hash=None)], "line 2: content_hash must be a SHA-256"),
        ([document(chunks=1.5)], "line 2: chunks must be a whole number"),
        ([document(metadata="x")], "line 2: metadata must be an object"),
        ([item(document_id="doc_9", position=0)], "line 2: the file has no document 'doc_9'"),
        ([item(summary_id="mem_9")], "line 2: the file has no other item 'mem_9'"),
        ([item(summary_id="mem_1")], "line 2: the file has no other item 'mem_1'"),
        ([item(id="a", summary_id="b"), item(id="b", summary_id="a")], "line 2: the summaries of this item"),
        ([item(), document()], "line 2 must be of kind 'document'"),
    ],
    ids=range(36),
)  # fmt: skip
def test_bad_lines_are_named(lines, message):
    with pytest.raises(InvalidRequest) as refused:
        read_file(file_of(*lines))
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([item(user_id=None)], "line 2: user_id must be text of 1 to 200"),
        ([item(user_id="")], "line 2: user_id must be text of 1 to 200"),
        ([item(user_id="x" * 201)], "line 2: user_id must be text of 1 to 200"),
        ([document(user_id=7)], "line 2: user_id must be text of 1 to 200"),
        ([document(user_id="a"), item(document_id="doc_1", position=0)], "line 3: the file has no document"),
        ([document(), item(user_id="a", document_id="doc_1", position=0)], "line 3: the file has no document"),
        ([document(user_id="b"), item(user_id="a", document_id="doc_1", position=0)], "line 3: the file has no docu"),
        ([item(user_id="a", summary_id="mem_2"), item(id="mem_2")], "line 2: the file has no other item"),
        ([item(user_id="a", summary_id="mem_2"), item(id="mem_2", user_id="b")], "line 2: the file has no other item"),
        ([document(user_id="a"), document(id="doc_2", user_id="a")], "line 3: the same"),
        ([item(user_id="a"), item(user_id="b")], "line 3: the same"),
    ],
    ids=range(11),
)
def test_users_in_a_file_are_checked(lines, message):
    with pytest.raises(InvalidRequest) as refused:
        read_file(file_of(*lines, version=2))
    assert refused.value.message.startswith(message)


@given(st.lists(st.tuples(st.sampled_from(["a", "Ніна", None]), texts), max_size=6))
def test_whose_a_memory_is_stands_in_its_line(wanted):
    writer = FileWriter()
    for number, (user, text) in enumerate(wanted):
        own = {"user_id": user} if user else {}
        writer.add("item", orjson.dumps(item(id=f"mem_{number}", content={"text": text}, **own)), user)
    data = writer.finish("microdao:a", "agent:a", NOON)
    users = {user for user, _ in wanted} - {None}
    assert writer.users == len(users)
    assert orjson.loads(data.partition(b"\n")[0])["version"] == (2 if users else 1)
    assert [(one.user_id, one.content["text"]) for one in read_file(data).items] == wanted


def test_the_first_version_knows_no_users():
    same = [document(user_id="a"), document(id="doc_2", user_id="b"), document(id="doc_3")]
    assert len(read_file(file_of(*same, version=2)).documents) == 3, "each may have the same document"
    with pytest.raises(InvalidRequest, match="line 2: the format has no field 'user_id'"):
        read_file(file_of(item(user_id="a")))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"version": 3}, "line 1: this version"),
        ({"version": 0}, "line 1: this version"),
        ({"version": "1"}, "line 1: this version"),
        ({"version": True}, "line 1: this version"),
        ({"format": "other"}, "this is not the file of a snapshot"),
        ({"items": 2}, "the file does not hold as many"),
        ({"items": 0}, "the file does not hold as many"),
        ({"documents": 1}, "line 2 must be of kind 'document'"),
        ({"items": -1}, "line 1: items must be a whole number"),
        ({"created_at": "soon"}, "line 1: created_at must be a time"),
        ({"more": 1}, "line 1: the format has no field 'more'"),
    ],
)
def test_bad_manifests_are_refused(manifest, message):
    with pytest.raises(InvalidRequest) as refused:
        read_file(file_of(item(), **manifest))
    assert refused.value.message.startswith(message)


def test_sizes_are_bounded(monkeypatch):
    with pytest.raises(TooLarge):
        read_file(b"x" * (MAX_BYTES + 1))
    with pytest.raises(TooLarge):
        read_file(file_of(item(), items=MAX_ITEMS + 1))
    monkeypatch.setattr(snapshot_file, "MAX_BYTES", 1000)
    writer = FileWriter()
    writer.add("item", b"x" * 600)
    with pytest.raises(TooLarge):
        writer.add("item", b"x" * 600)


def test_the_api_takes_what_memory_takes():
    assert MAX_RAW_BYTES == MAX_BYTES
    assert set(RAW_TYPES.values()) == {MEDIA_TYPE}
