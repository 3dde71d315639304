"""Loading the corpus straight into the tables, in the shape in which the product writes it.

Tenants' items come mixed, as they would over the months: a tenant's rows do not lie side by side in the tables.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from itertools import islice

import numpy as np
import psycopg
from numpy.typing import NDArray

from bench.memory import corpus
from bench.memory.corpus import Tenant
from bench.memory.stack import AGENT
from shared.memory.search.terms import LEXICON, item_terms

_BATCH = 10_000
_ITEM_COLUMNS = (
    "number, id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, source, author, channel_id,"
    " session_id, importance, state, occurred_at, words, lexicon, queued_at, indexed_at"
)
_POSTING_COLUMNS = "scope_id, term, item, frequency, words"


@dataclass(slots=True)
class Loaded:
    """Seconds that each table took."""

    seconds: dict[str, float] = field(default_factory=lambda: {"items": 0.0, "postings": 0.0, "embeddings": 0.0})


@dataclass(frozen=True, slots=True)
class Order:
    """Which tenant the n-th item of the corpus belongs to, and its place in the tenant."""

    tenant: NDArray[np.int32]
    place: NDArray[np.int32]


def order(tenants: Sequence[Tenant]) -> Order:
    """A random mix that is the same each time; an item's number is its index here plus 1."""
    sizes = np.array([tenant.items for tenant in tenants])
    owner = np.repeat(np.arange(len(tenants), dtype=np.int32), sizes)
    np.random.default_rng(5).shuffle(owner)
    place = np.empty(len(owner), np.int32)
    for index in range(len(tenants)):
        place[owner == index] = np.arange(sizes[index])
    return Order(owner, place)


def numbers(mix: Order, tenant: Tenant) -> NDArray[np.int64]:
    """The numbers of a tenant's items, in their order."""
    return np.flatnonzero(mix.tenant == tenant.index) + 1


def load(admin_url: str, tenants: Sequence[Tenant], scopes: Sequence[int], space: int, dimensions: int) -> Loaded:
    """Fill the tables (indexes in place) and analyse them; ``scopes`` are those of the tenants' agents."""
    mix, loaded = order(tenants), Loaded()
    with psycopg.connect(admin_url) as connection:
        connection.execute("SET synchronous_commit = off")
        loaded.seconds["items"] = _copy_items(connection, tenants, scopes, mix)
        for tenant in tenants:
            loaded.seconds["postings"] += _copy_postings(connection, tenant, scopes[tenant.index], mix)
        _copy_vectors(connection, tenants, scopes, mix, (space, dimensions), loaded)
        connection.execute("SELECT setval(pg_get_serial_sequence('memory_item', 'number'), %s)", (len(mix.tenant),))
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return loaded


def _copy_items(connection: psycopg.Connection, tenants: Sequence[Tenant], scopes: Sequence[int], mix: Order) -> float:
    written = [corpus.texts(tenant) for tenant in tenants]
    seconds = 0.0
    for start in range(0, len(mix.tenant), _BATCH):
        lines = []
        for number, owner in enumerate(mix.tenant[start : start + _BATCH], start + 1):
            text = next(written[owner])
            words = len(_terms(text, number))
            lines.append(_item_line(number, tenants[owner], text, scopes[owner], int(mix.place[number - 1]), words))
        seconds += _copy(connection, f"memory_item ({_ITEM_COLUMNS})", lines)
    connection.commit()
    return seconds


def _copy_postings(connection: psycopg.Connection, tenant: Tenant, scope: int, mix: Order) -> float:
    """A tenant's, sorted: one by one in the order of items they would go all over the index."""
    seconds = 0.0
    numbered = zip(numbers(mix, tenant).tolist(), corpus.texts(tenant), strict=True)
    while chunk := list(islice(numbered, _BATCH)):
        postings = []
        for number, text in chunk:
            terms = _terms(text, number)
            postings += [(term, number, count, len(terms)) for term, count in Counter(terms).items()]
        lines = [f"{scope}\t{term}\t{number}\t{count}\t{words}" for term, number, count, words in sorted(postings)]
        seconds += _copy(connection, f"memory_posting ({_POSTING_COLUMNS})", lines)
    connection.commit()
    return seconds


def _terms(text: str, number: int) -> list[str]:
    """The product's terms of an item, word by word, for a corpus repeats its words."""
    moment = corpus.moment(number)
    return [term for word in text.split() for term in _word_terms(word)] + _day_terms(moment.date())


@cache
def _word_terms(word: str) -> list[str]:
    return list(item_terms(word).elements())


@cache
def _day_terms(day: date) -> list[str]:
    return list(item_terms("", None, datetime(day.year, day.month, day.day, tzinfo=UTC)).elements())


def _item_line(number: int, tenant: Tenant, text: str, scope: int, place: int, words: int) -> str:
    content = json.dumps({"text": text})
    digest = hashlib.sha256(content.encode()).hexdigest()
    said = corpus.moment(number).isoformat()
    thread = f"sess_{tenant.index}_{place // corpus.ITEMS_A_THREAD}"
    columns = (number, f"mem_{number:012}", tenant.microdao, scope, AGENT, "mid_term", content, text, f"\\\\x{digest}")
    return "\t".join(map(str, (*columns, r"\N", r"\N", r"\N", thread, 0.5, "ready", said, words, LEXICON, said, said)))


def _copy(connection: psycopg.Connection, target: str, lines: Sequence[str]) -> float:
    began = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
        copy.write("\n".join(lines) + "\n")
    return time.perf_counter() - began


def _copy_vectors(
    connection: psycopg.Connection,
    tenants: Sequence[Tenant],
    scopes: Sequence[int],
    mix: Order,
    space: tuple[int, int],
    loaded: Loaded,
) -> None:
    every = np.empty((len(mix.tenant), space[1]), np.float16)
    for tenant in tenants:
        every[numbers(mix, tenant) - 1] = corpus.vectors(tenant, space[1])
    began = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy("COPY memory_embedding FROM STDIN (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for block in _blocks(every, np.asarray(scopes)[mix.tenant], space):
            copy.write(block)
        copy.write(b"\xff\xff")
    connection.commit()
    loaded.seconds["embeddings"] = time.perf_counter() - began


def _blocks(every: NDArray[np.float16], scopes: NDArray[np.int64], space: tuple[int, int]) -> Iterator[bytes]:
    """Rows of COPY's binary form: each field after its length, numbers big-endian, a vector after its dimensions."""
    widths = {"space": "i2", "scope": "i4", "item": "i8", "part": "i2"}
    names = [part for name, kind in widths.items() for part in ((f"{name}_bytes", ">i4"), (name, f">{kind}"))]
    vector = [("vector_bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), ("values", ">f2", (space[1],))]
    layout = np.dtype([("fields", ">i2"), *names, *vector])
    for start in range(0, len(every), _BATCH):
        part = every[start : start + _BATCH]
        block = np.zeros(len(part), layout)
        block["fields"] = len(widths) + 1
        for name, kind in widths.items():
            block[f"{name}_bytes"] = np.dtype(kind).itemsize
        block["space"], block["scope"] = space[0], scopes[start : start + _BATCH]
        block["item"] = np.arange(start + 1, start + len(part) + 1)
        block["vector_bytes"], block["dimensions"], block["values"] = 4 + 2 * space[1], space[1], part
        yield block.tobytes()
