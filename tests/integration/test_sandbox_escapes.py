"""The list of escapes, against every sandbox that this machine can run, and without one to show that they work."""

import platform
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.port import SandboxBackend
from tests.attacks import ATTACKS
from tests.attacks.model import SECRET_VARIABLE, Attack, Target, processes_with, run_outside, target
from tests.integration.sandboxes import BACKENDS, ZYGOTE, assert_well, at_rest, open_backend, run

pytestmark = pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")

FITTING = [attack for attack in ATTACKS if attack.machine in ("", platform.machine())]


@pytest.fixture(scope="module", params=BACKENDS)
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    """One backend for all attacks in turn: none may leave it, or the next, any worse."""
    backend = open_backend(request.param)
    yield backend
    await backend.close()
    assert not processes_with(ZYGOTE)


@pytest.fixture
def aim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """What there is to attack."""
    with target(tmp_path) as aim:
        monkeypatch.setenv(SECRET_VARIABLE, aim.token)
        yield aim


@pytest.mark.parametrize("attack", FITTING, ids=str)
async def test_is_blocked(sandbox: SandboxBackend, aim: Target, attack: Attack) -> None:
    await assert_well(sandbox)
    before = await at_rest()
    result = await run(sandbox, attack.code, aim.args)
    assert not attack.succeeded(aim, result.value), result
    assert await at_rest() == before, "a process outlived its call, or took the fork server along"
    await assert_well(sandbox)


@pytest.mark.parametrize("attack", [attack for attack in FITTING if attack.is_control], ids=str)
def test_works_without_a_sandbox(aim: Target, attack: Attack) -> None:
    value = run_outside(attack, aim)
    assert attack.succeeded(aim, value), value


def test_each_group_has_an_attack_that_works_without_a_sandbox() -> None:
    assert {attack.group for attack in FITTING} == {attack.group for attack in FITTING if attack.is_control}
