"""A microDAO's own policies: written, versioned, known to each process within two seconds."""

import asyncio

import pytest

from shared.db.database import Database
from shared.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, Unauthorized, Unavailable
from shared.ids import new_id
from shared.policy import store_policies
from shared.policy.decision import Resource
from shared.policy.known import KNOWN_FOR_S, KnownPolicies
from shared.policy.own import MAX_POLICIES, MAX_VERSION, OwnPolicyBook
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal

NO_MATH = 'forbid (principal, action == Action::"tool.invoke", resource == Tool::"math");'
NO_GUESTS = """
forbid (principal in Role::"guest", action == Action::"agent.run", resource)
unless { principal in Role::"member" };
"""
FLOWS = 'permit (principal == Principal::"agent:sofia", action == Action::"flow.run", resource);'
GRANTED = {"granted": True}


class Here:
    """One process: what it decides and what it writes."""

    def __init__(self, database: Database, microdao: str) -> None:
        self.policy = Policy(database)
        self.book = OwnPolicyBook(database, self.policy.known)
        self.admin = Principal("key_admin", microdao, frozenset({"admin"}))
        self.math = Resource("Tool", "math", microdao)

    async def may_calculate(self) -> bool:
        sofia = agent_principal("agent:sofia", self.admin.microdao_id)
        return (await self.policy.decide(sofia, "tool.invoke", self.math, GRANTED)).allow

    async def forbid_math(self, name: str = "no-math") -> str:
        return str((await self.book.create(self.admin, name, "", NO_MATH, True))["id"])


@pytest.fixture
def here(database: Database, microdao: str) -> Here:
    return Here(database, microdao)


async def test_a_forbid_holds_at_once_and_names_itself(here: Here) -> None:
    assert await here.may_calculate()
    policy_id = await here.forbid_math()
    sofia = agent_principal("agent:sofia", here.admin.microdao_id)
    with pytest.raises(Unauthorized, match=r"tool\.invoke is forbidden by own/no-math"):
        await here.policy.authorize(sofia, "tool.invoke", here.math, GRANTED)
    (denial,) = await here.policy.denials.list(here.admin.microdao_id)
    assert denial["policies"] == ["own/no-math"]
    await here.book.replace(here.admin, policy_id, "no-math", "", NO_MATH, False)
    assert await here.may_calculate(), "a policy that is not active has no effect"
    await here.book.replace(here.admin, policy_id, "no-math", "", NO_MATH, True)
    assert not await here.may_calculate()
    await here.book.delete(here.admin, policy_id)
    assert await here.may_calculate()


async def test_a_permit_reaches_what_members_may_do(here: Here) -> None:
    sofia = agent_principal("agent:sofia", here.admin.microdao_id)
    flow = Resource("Flow", "flow_1", here.admin.microdao_id)
    assert not (await here.policy.decide(sofia, "flow.run", flow)).allow
    await here.book.create(here.admin, "flows", "", FLOWS, True)
    decision = await here.policy.decide(sofia, "flow.run", flow)
    assert (decision.allow, decision.policies) == (True, ("own/flows",))
    bob = agent_principal("agent:bob", here.admin.microdao_id)
    assert not (await here.policy.decide(bob, "flow.run", flow)).allow


async def test_another_microdao_feels_nothing(here: Here, database: Database) -> None:
    other = f"microdao:{new_id('test')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
    there = Here(database, other)
    await here.forbid_math()
    assert await there.may_calculate()
    policy_id = await here.forbid_math("twice")
    for asked in (there.book.get(other, policy_id), there.book.delete(there.admin, policy_id)):
        with pytest.raises(NotFound):
            await asked
    with pytest.raises(NotFound):
        await there.book.versions(other, policy_id, MAX_VERSION, 10)


async def test_another_process_knows_within_two_seconds(database: Database, microdao: str) -> None:
    now = 0.0
    known = KnownPolicies(database, lambda: now)
    here = Here(database, microdao)
    assert await known.load(microdao) is None
    await here.forbid_math()
    now = KNOWN_FOR_S - 0.01
    assert known.fresh(microdao) == (0.0, None)
    now = KNOWN_FOR_S
    assert known.fresh(microdao) is None
    own = await known.load(microdao)
    assert own is not None
    assert own.count == 1
    now = 2 * KNOWN_FOR_S
    assert await known.load(microdao) is own, "what has not changed is not parsed again"


async def test_what_is_read_while_it_changes_is_not_remembered(
    here: Here, microdao: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store_policies.read_version

    async def read_slowly(database: Database, microdao_id: str) -> int:
        version = await read(database, microdao_id)
        monkeypatch.undo()
        await here.forbid_math()
        return version

    monkeypatch.setattr(store_policies, "read_version", read_slowly)
    assert await here.may_calculate(), "it was allowed when it was looked up"
    assert not await here.may_calculate()


async def test_a_hundred_who_ask_at_once_make_one_query(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    read, queries = store_policies.read_version, 0

    async def counted(database: Database, microdao_id: str) -> int:
        nonlocal queries
        queries += 1
        return await read(database, microdao_id)

    monkeypatch.setattr(store_policies, "read_version", counted)
    assert all(await asyncio.gather(*(here.may_calculate() for _ in range(100))))
    assert queries == 1


async def test_who_goes_away_does_not_spoil_the_answer_of_others(here: Here) -> None:
    first, second = (asyncio.create_task(here.may_calculate()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second


async def test_what_cannot_be_read_lets_nobody_in() -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/none", checkout_timeout_s=0.2)
    policy = Policy(nowhere)
    owner = Principal("key_1", "m", frozenset({"owner"}))
    with pytest.raises(Unavailable):
        await policy.authorize(owner, "memory.read", Resource("Agent", "agent:a", "m"))
    assert (await policy.authorize(owner, "policy.write", Resource("MicroDao", "m", "m"))).allow, (
        "to mend what is wrong"
    )
    await nowhere.close()


async def test_a_stored_text_that_is_no_policy_denies_until_it_is_mended(here: Here, database: Database) -> None:
    policy_id = await here.forbid_math()
    async with database.tenant(here.admin.microdao_id) as connection:
        await connection.execute("UPDATE access_policy SET source = 'permit (principal'")
        await store_policies.next_version(connection, here.admin.microdao_id)
    here.policy.known.forget(here.admin.microdao_id)
    sofia = agent_principal("agent:sofia", here.admin.microdao_id)
    decision = await here.policy.decide(sofia, "tool.invoke", here.math, GRANTED)
    assert (decision.allow, decision.reason) == (False, "policy error in the microDAO's own")
    asked = Resource("MicroDao", here.admin.microdao_id, here.admin.microdao_id)
    assert (await here.policy.decide(here.admin, "policy.write", asked)).allow
    await here.book.delete(here.admin, policy_id)
    assert await here.may_calculate()


async def test_nobody_locks_the_administrators_out(here: Here) -> None:
    await here.book.create(here.admin, "nothing", "", "forbid (principal, action, resource);", True)
    asked = Resource("MicroDao", here.admin.microdao_id, here.admin.microdao_id)
    assert not (await here.policy.decide(here.admin, "tool.list", asked)).allow
    for action in ("policy.read", "policy.write", "policy.ask", "key.write"):
        assert (await here.policy.decide(here.admin, action, asked)).allow, action


async def test_history_tells_who_and_what(here: Here) -> None:
    policy_id = await here.forbid_math()
    owner = Principal("key_owner", here.admin.microdao_id, frozenset({"owner"}))
    await here.book.replace(owner, policy_id, "renamed", "why", FLOWS, False)
    await here.book.delete(here.admin, policy_id)
    versions = await here.book.versions(here.admin.microdao_id, policy_id, MAX_VERSION, 10)
    assert [(one["version"], one["change"], one["changed_by"], one["name"], one["source"]) for one in versions] == [
        (3, "deleted", "key_admin", "renamed", FLOWS),
        (2, "changed", "key_owner", "renamed", FLOWS),
        (1, "created", "key_admin", "no-math", NO_MATH),
    ]
    assert await here.book.versions(here.admin.microdao_id, policy_id, 1, 10) == []
    with pytest.raises(NotFound):
        await here.book.versions(here.admin.microdao_id, "pol_none", MAX_VERSION, 10)


async def test_names_are_taken_once(here: Here) -> None:
    await here.forbid_math()
    with pytest.raises(Conflict):
        await here.forbid_math()
    other = await here.forbid_math("other")
    with pytest.raises(Conflict):
        await here.book.replace(here.admin, other, "no-math", "", NO_MATH, True)
    with pytest.raises(NotFound):
        await here.book.replace(here.admin, "pol_none", "new", "", NO_MATH, True)


async def test_a_fault_names_its_line(here: Here) -> None:
    with pytest.raises(InvalidRequest, match=r"^line 2: ") as caught:
        await here.book.create(here.admin, "bad", "", "forbid (principal, action,\nresource whatever);", True)
    assert caught.value.param == "source"
    assert await here.book.list(here.admin.microdao_id, "", 10) == []


async def test_there_are_never_too_many_not_even_at_once(here: Here) -> None:
    tries = (here.forbid_math(f"policy-{number}") for number in range(MAX_POLICIES + 10))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(one) for one in outcomes if not isinstance(one, str)] == [LimitExceeded] * 10
    assert len(await here.book.list(here.admin.microdao_id, "", 200)) == MAX_POLICIES
    assert not await here.may_calculate()


async def test_a_policy_for_guests_alone(here: Here) -> None:
    await here.book.create(here.admin, "no-guests", "", NO_GUESTS, True)
    agent = Resource("Agent", "agent:sofia", here.admin.microdao_id)
    for role, expected in (("guest", False), ("member", True), ("owner", True)):
        principal = Principal("key_1", here.admin.microdao_id, frozenset({role}))
        assert (await here.policy.decide(principal, "agent.run", agent)).allow == expected, role


async def test_lists_ask_for_each(here: Here) -> None:
    await here.forbid_math()
    microdao_id = here.admin.microdao_id
    sofia = agent_principal("agent:sofia", microdao_id)
    asked = [(Resource("Tool", name, microdao_id), GRANTED) for name in ("math", "task.create")]
    asked.append((Resource("Tool", "memory.search", microdao_id), {"granted": False}))
    decisions = await here.policy.decide_each(sofia, "tool.invoke", asked)
    assert [one.allow for one in decisions] == [False, True, False]
    assert await here.policy.governs(microdao_id, "tool.invoke")
    assert not await here.policy.governs(microdao_id, "flow.run")
    assert not await here.policy.governs("microdao:other", "tool.invoke")
