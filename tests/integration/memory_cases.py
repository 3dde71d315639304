"""One case for each route of memory: how to call it about somebody's memory. test_memory_isolation.py tries them all,
and fails for a route that has none. A new route adds its line to CASES.

Kinds, by what must happen when an agent calls about memory that is another agent's (Alice's):

- ``reads``: lists or finds. Not shared: 200 without any of it. Shared: 200 with it.
- ``reads one``: gets one thing by its id. Not shared: 404. Shared: 200.
- ``writes``: adds to it. Not shared: 404. Shared for reading: 403. For writing: 201.
- ``changes``, ``deletes``: one thing by its id. Not shared: 404. Shared for reading: 403. For writing: 200.
- ``own``: concerns the calling agent's own memory only, whatever is shared with it: 200 without any of Alice's.
- ``saves``: the same, but what is its own is kept once more: 201.
- ``copies``: into the calling agent's own memory. Not shared: 404. Shared: 200, and the copy is its own from then on.
- ``administers``: of the whole microDAO; members of it look, admins change, agents do neither.
- ``governs``: of the whole microDAO, for its admins only.
- ``operates``: of the whole platform, for operators only: 403 for everybody else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from shared.memory.snapshots.file import MEDIA_TYPE
from tests.unit.test_memory_snapshot_file import file_of

Kind = Literal[
    "reads",
    "reads one",
    "writes",
    "changes",
    "deletes",
    "own",
    "saves",
    "copies",
    "administers",
    "governs",
    "operates",
]
SECRET: Final = "xylophone"
ALICE, BOB, TEAM, CHANNEL = "agent:alice", "agent:bob", "team:x", "channel-7"

_FOREIGN: Final[dict[Kind, int]] = {
    "reads": 200,
    "reads one": 404,
    "writes": 404,
    "changes": 404,
    "deletes": 404,
    "own": 200,
    "saves": 201,
    "copies": 404,
    "governs": 200,
    "operates": 403,
}


@dataclass(frozen=True)
class Ids:
    """What a call names: who calls, and Alice's things. ``microdao_id`` None is the key's own."""

    actor: str = BOB
    microdao_id: str | None = None
    item: str = ""
    document: str = ""
    snapshot: str = ""
    grant: str = ""


@dataclass(frozen=True)
class Call:
    """A request to a route's path: what stands in its braces, its query, its JSON body or a snapshot's file."""

    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    file: bytes | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": MEDIA_TYPE} if self.file is not None else {}


@dataclass(frozen=True)
class Case:
    """How a route is called, what it is, and what another tenant gets that names our ids in its own microDAO, where
    agents have the same names but nothing is stored or shared (None: what the kind says). ``key`` is the role of the
    key that calls: a member's where an admin may do more than the agent."""

    kind: Kind
    call: Callable[[Ids], Call]
    foreign_status: int | None = None
    key: Literal["admin", "member"] = "admin"

    @property
    def foreign(self) -> int:
        return self.foreign_status or _FOREIGN[self.kind]


def _in_body(**more: Any) -> Callable[[Ids], Call]:
    return lambda ids: Call(body={"agent_id": ids.actor, **_tenant(ids), **more})


def _into_hers(**more: Any) -> Callable[[Ids], Call]:
    return _in_body(owner_agent_id=ALICE, **more)


def _tenant(ids: Ids) -> dict[str, Any]:
    return {"microdao_id": ids.microdao_id} if ids.microdao_id else {}


def _of_team(ids: Ids) -> Call:
    return Call({"team_id": TEAM}, _tenant(ids))


def _member(ids: Ids) -> Call:
    return Call({"team_id": TEAM, "agent_id": ids.actor}, _tenant(ids))


def _of_actor(ids: Ids) -> Call:
    return Call({"agent_id": ids.actor}, _tenant(ids))


def _item(ids: Ids) -> Call:
    return Call({"agent_id": ids.actor, "item_id": ids.item}, _tenant(ids))


def _document(ids: Ids) -> Call:
    return Call({"document_id": ids.document}, {"agent_id": ids.actor, **_tenant(ids)})


def _snapshot(ids: Ids) -> Call:
    return Call({"snapshot_id": ids.snapshot}, {"agent_id": ids.actor, **_tenant(ids)})


def _for_actor(ids: Ids) -> Call:
    return Call(query={"agent_id": ids.actor, **_tenant(ids)})


def _figures(ids: Ids) -> Call:
    return Call(query={"agent_id": ids.actor, "unused_days": 1, **_tenant(ids)})


_PARTIES = {"scope": {"kind": "agent", "name": ALICE}, "grantee": {"kind": "agent", "name": BOB}}
_MEMORY = "/internal/agent-memory"
_SNAPSHOTS = f"{_MEMORY}/snapshots"
_ANALYTICS = f"{_MEMORY}/analytics"

CASES: Final[dict[tuple[str, str], Case]] = {
    ("POST", f"{_MEMORY}/store"): Case("writes", _into_hers(content={"text": f"a new {SECRET}"})),
    ("POST", f"{_MEMORY}/query"): Case("reads", _in_body(query=SECRET, k=50)),
    ("POST", f"{_MEMORY}/recent"): Case("reads", _in_body(channel_id=CHANNEL)),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Case("reads one", _item),
    ("PATCH", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Case(
        "changes", lambda ids: replace(_item(ids), body={"content": {"text": "harmless"}, "importance": 0.7})
    ),
    ("POST", f"{_MEMORY}/forget"): Case("own", _in_body(memory_types=["short_term", "mid_term", "long_term"])),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/stats"): Case("own", _of_actor),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/items"): Case("reads", _of_actor),
    ("DELETE", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Case(
        "deletes", lambda ids: Call({"agent_id": ids.actor, "item_id": ids.item}, _tenant(ids))
    ),
    ("POST", f"{_MEMORY}/documents"): Case("writes", _into_hers(text=f"a whole {SECRET}")),
    ("GET", f"{_MEMORY}/documents"): Case("reads", _for_actor),
    ("GET", f"{_MEMORY}/documents/{{document_id}}"): Case("reads one", _document),
    ("DELETE", f"{_MEMORY}/documents/{{document_id}}"): Case("deletes", _document),
    ("POST", "/internal/channels/{channel_id}/messages"): Case(
        "writes",
        lambda ids: Call({"channel_id": CHANNEL}, body=_into_hers(messages=[{"text": f"one more {SECRET}"}])(ids).body),
    ),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/scopes"): Case("own", _of_actor),
    ("GET", f"{_MEMORY}/teams"): Case("administers", lambda ids: Call(query=_tenant(ids)), 200),
    ("GET", f"{_MEMORY}/teams/{{team_id}}"): Case("administers", _of_team, 404),
    ("PUT", f"{_MEMORY}/teams/{{team_id}}"): Case(
        "administers", lambda ids: Call({"team_id": TEAM}, body={"name": "Renamed", **_tenant(ids)}), 200
    ),
    ("DELETE", f"{_MEMORY}/teams/{{team_id}}"): Case(
        "administers", lambda ids: Call({"team_id": TEAM}, {"force": True, **_tenant(ids)}), 404
    ),
    ("GET", f"{_MEMORY}/teams/{{team_id}}/members"): Case("administers", _of_team, 404),
    ("PUT", f"{_MEMORY}/teams/{{team_id}}/members/{{agent_id}}"): Case("administers", _member, 404),
    ("DELETE", f"{_MEMORY}/teams/{{team_id}}/members/{{agent_id}}"): Case("administers", _member, 404),
    ("GET", f"{_MEMORY}/grants"): Case("administers", lambda ids: Call(query=_tenant(ids)), 200),
    ("PUT", f"{_MEMORY}/grants"): Case("administers", lambda ids: Call(body={**_PARTIES, **_tenant(ids)}), 200),
    ("DELETE", f"{_MEMORY}/grants/{{grant_id}}"): Case(
        "administers", lambda ids: Call({"grant_id": ids.grant}, _tenant(ids)), 404
    ),
    ("POST", _SNAPSHOTS): Case("saves", _in_body(name="mine")),
    ("GET", _SNAPSHOTS): Case("own", _for_actor),
    ("POST", f"{_SNAPSHOTS}/import"): Case(
        "own", lambda ids: Call(query={"agent_id": ids.actor, "mode": "replace", **_tenant(ids)}, file=file_of())
    ),
    ("GET", f"{_SNAPSHOTS}/{{snapshot_id}}"): Case("reads one", _snapshot),
    ("DELETE", f"{_SNAPSHOTS}/{{snapshot_id}}"): Case("deletes", _snapshot),
    ("GET", f"{_SNAPSHOTS}/{{snapshot_id}}/file"): Case("reads one", _snapshot),
    ("POST", f"{_SNAPSHOTS}/{{snapshot_id}}/restore"): Case(
        "copies",
        lambda ids: Call({"snapshot_id": ids.snapshot}, body={"agent_id": ids.actor, **_tenant(ids)}),
        key="member",
    ),
    ("GET", _ANALYTICS): Case("own", _figures),
    ("GET", f"{_ANALYTICS}/most-used"): Case("own", _for_actor),
    ("GET", f"{_ANALYTICS}/stale"): Case("own", _figures),
    ("GET", "/admin/memory/policy"): Case("governs", lambda ids: Call(query=_tenant(ids))),
    ("PUT", "/admin/memory/policy"): Case("governs", lambda ids: Call(query=_tenant(ids), body={"max_items": 1000})),
    ("POST", "/admin/memory/prune"): Case("governs", lambda ids: Call(body=_tenant(ids))),
    ("GET", "/admin/memory/prunings"): Case("governs", lambda ids: Call(query=_tenant(ids))),
    ("GET", "/admin/memory/reindex"): Case("operates", lambda _: Call()),
    ("POST", "/admin/memory/reindex"): Case("operates", lambda _: Call(body={})),
    ("DELETE", "/admin/memory/reindex"): Case("operates", lambda _: Call()),
}
