"""Variants: the same for the same caller, shared out by weight, and changing nothing but what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.llm.caller import Caller
from shared.llm.experiments.experiments import Experiment, Variant, choose_variant, sticky_unit, vary
from shared.wire.chat import ChatRequest

CALLER = Caller(microdao_id="microdao:a", agent_id="agent:sofia", key_id="key_1", session_id="sess_1")
HELLO = [{"role": "user", "content": "hello"}]


def request(messages: list[dict] = HELLO, **more: object) -> ChatRequest:
    return ChatRequest.model_validate({"model": "smart", "messages": messages, **more})


def experiment(*weights: int) -> Experiment:
    variants = tuple(Variant(name=f"v{place}", weight=weight) for place, weight in enumerate(weights))
    return Experiment(name="tone", model="smart", blueprint=None, variants=variants, active=True)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any), st.text(min_size=1, max_size=20))
def test_a_unit_keeps_its_variant_and_none_without_weight_is_chosen(weights: list[int], unit: str) -> None:
    split = experiment(*weights)
    chosen = choose_variant(split, unit)
    assert chosen == choose_variant(experiment(*weights), unit)
    assert chosen.weight > 0


@given(st.lists(st.integers(0, 9), min_size=2, max_size=4).filter(any), st.integers(0, 1000))
def test_the_share_of_a_variant_is_its_weight(weights: list[int], seed: int) -> None:
    split, count = experiment(*weights), 4000
    chosen = [choose_variant(split, f"sess_{seed}_{number}").name for number in range(count)]
    for variant in split.variants:
        share = variant.weight / sum(weights)
        spread = (share * (1 - share) / count) ** 0.5
        assert abs(chosen.count(variant.name) / count - share) <= 6 * spread


def test_two_experiments_do_not_choose_alike() -> None:
    first, second = experiment(1, 1), Experiment(**{**vars_of(experiment(1, 1)), "name": "length"})
    same = sum(choose_variant(first, str(unit)).name == choose_variant(second, str(unit)).name for unit in range(2000))
    assert 850 < same < 1150


def vars_of(one: Experiment) -> dict:
    return {name: getattr(one, name) for name in ("name", "model", "blueprint", "variants", "active")}


def test_who_keeps_a_variant() -> None:
    assert sticky_unit(request(), CALLER) == "sess_1"
    bare = Caller(microdao_id="microdao:a", key_id="key_1")
    assert sticky_unit(request(metadata={"session_id": "sess_9"}), bare) == "sess_9"
    assert sticky_unit(request(user="ann"), bare) == "ann"
    assert sticky_unit(request(), Caller(microdao_id="microdao:a", agent_id="agent:x")) == "agent:x"
    assert sticky_unit(request(), bare) == "key_1"
    assert sticky_unit(request(), Caller(microdao_id="microdao:a")) == "microdao:a"


SOFIA = {"role": "system", "content": "You are Sofia.\n\nRelevant memories:\n- likes tea"}
HEARD = "\n\nSaid lately in this channel:\n- hello"
LISTENING = {"role": "system", "content": f"You are Sofia.{HEARD}"}


@pytest.mark.parametrize(
    ("messages", "mode", "first"),
    [
        ([SOFIA, *HELLO], "append", "You are Sofia.\n\nBe brief.\n\nRelevant memories:\n- likes tea"),
        ([SOFIA, *HELLO], "replace", "Be brief.\n\nRelevant memories:\n- likes tea"),
        ([LISTENING, *HELLO], "append", f"You are Sofia.\n\nBe brief.{HEARD}"),
        ([LISTENING, *HELLO], "replace", f"Be brief.{HEARD}"),
        (
            [{"role": "system", "content": SOFIA["content"] + HEARD}, *HELLO],
            "replace",
            f"Be brief.\n\nRelevant memories:\n- likes tea{HEARD}",
        ),
        ([{"role": "developer", "content": "Be kind."}, *HELLO], "append", "Be kind.\n\nBe brief."),
        (HELLO, "append", "Be brief."),
    ],
)
def test_instructions(messages: list[dict], mode: str, first: str) -> None:
    said = request(messages)
    before = said.model_dump_json()
    varied = vary(said, Variant(name="brief", weight=1, instructions="Be brief.", instructions_mode=mode))
    assert varied.messages[0].content == first
    assert varied.messages[-1] == said.messages[-1]
    assert said.model_dump_json() == before


def test_instructions_in_parts() -> None:
    parts = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, *HELLO]
    for mode, texts in (("append", ["Be kind.", "Be brief."]), ("replace", ["Be brief."])):
        varied = vary(request(parts), Variant(name="b", weight=1, instructions="Be brief.", instructions_mode=mode))
        assert [part.text for part in varied.messages[0].content] == texts


def test_model_and_temperature() -> None:
    varied = vary(request(temperature=1), Variant(name="cold", weight=1, model="cheap", temperature=0))
    assert (varied.model, varied.temperature) == ("cheap", 0)
    assert varied.model_dump(exclude_unset=True)["temperature"] == 0
    assert vary(request(), Variant(name="control", weight=1)) == request()
