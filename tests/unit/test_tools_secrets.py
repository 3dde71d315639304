"""Sealing, redaction and templates of secrets: pure functions."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest, Unavailable
from shared.tools.secrets.redaction import Redactor
from shared.tools.secrets.sealing import Sealer
from shared.tools.secrets.secrets import bound_places, check_value
from shared.tools.secrets.templates import render, secret_names, template_fault
from shared.tools.web.addresses import Place

SECRET = 'p@ss/w+rd"\\&є 7'


def test_a_sealed_value_opens_in_its_own_row_only():
    sealer = Sealer(["key"])
    sealed = sealer.seal("microdao:a", "token", SECRET)
    assert SECRET.encode() not in sealed
    assert sealer.open("microdao:a", "token", sealed) == SECRET
    assert sealer.seal("microdao:a", "token", SECRET) != sealed
    for microdao_id, name in (("microdao:b", "token"), ("microdao:a", "other"), ("microdao:a\0token", "")):
        with pytest.raises(Unavailable):
            sealer.open(microdao_id, name, sealed)


def test_keys_are_rotated():
    sealed = Sealer(["old"]).seal("microdao:a", "token", SECRET)
    rotating = Sealer(["new", "old"])
    assert rotating.open("microdao:a", "token", sealed) == SECRET
    resealed = rotating.reseal("microdao:a", "token", sealed)
    assert Sealer(["new"]).open("microdao:a", "token", resealed) == SECRET
    with pytest.raises(Unavailable, match="no more"):
        Sealer(["new"]).open("microdao:a", "token", sealed)


@pytest.mark.parametrize("keys", [[], [""], ["key", ""]])
def test_without_a_key_nothing_is_sealed(keys):
    with pytest.raises(Unavailable, match="DAARION_SECRET_KEY"):
        Sealer(keys)


def in_all_forms(secret: str) -> list[str]:
    raw = secret.encode()
    around = [
        base64.b64encode(before + raw + after).decode()
        for before in (b"", b"u", b"u:", b"me:")
        for after in (b"", b"x", b"xy")
    ]
    return [
        secret, quote(secret, safe=""), quote_plus(secret), quote(secret),
        json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), raw.hex(), raw.hex().upper(),
        *around, *[text.replace("+", "-").replace("/", "_") for text in around],
    ]  # fmt: skip


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=8, max_size=60))
def test_no_form_of_a_secret_survives(secret):
    redactor = Redactor({"token": secret})
    for form in in_all_forms(secret):
        shown = redactor.text(f"before {form} after")
        assert "[secret token]" in shown
        assert secret not in shown


def test_redaction_reaches_every_corner_of_a_value():
    redactor = Redactor({"token": "12345678", "longer": "1234567890"})
    value = {"a": ["x12345678y", {"12345678": 12345678}], "b": 1234567890, "c": [1, True, None, 2.5], "d": "1234567890"}
    assert redactor.value(value) == {
        "a": ["x[secret token]y", {"[secret token]": "[secret token]"}],
        "b": "[secret longer]",
        "c": [1, True, None, 2.5],
        "d": "[secret longer]",
    }


def test_without_secrets_nothing_changes():
    assert Redactor({}).value({"a": ["text", 1]}) == {"a": ["text", 1]}


def test_templates():
    config = {
        "headers": {"Authorization": "Bearer {{secret}}", "X-Key": "{{ secrets.other.key }}"},
        "list": ["{{secret}}", 1],
    }
    assert secret_names(config, "mine") == {"mine", "other.key"}
    assert template_fault(config, "mine") is None
    values = {"mine": "{{secrets.other.key}}", "other.key": "\\1"}
    rendered = render(config, values, "mine")
    assert rendered == {
        "headers": {"Authorization": "Bearer {{secrets.other.key}}", "X-Key": "\\1"},
        "list": ["{{secrets.other.key}}", 1],
    }


@pytest.mark.parametrize(
    ("text", "ref"),
    [("{{secret}}", None), ("{{env.HOME}}", "a"), ("{{secrets.UPPER}}", "a"), ("{{secrets.}}", "a"), ("{{}}", "a")],
)
def test_templates_with_a_fault(text, ref):
    assert template_fault({"headers": {"X": text}}, ref) is not None


@pytest.mark.parametrize(
    "value", ["short", "x" * 8193, "line\nbreak", "tab\tinside", "null\0byte", " leading", "trailing "]
)
def test_values_that_are_not_taken(value):
    with pytest.raises(InvalidRequest) as refused:
        check_value(value)
    assert refused.value.param == "value"
    assert value not in refused.value.message


def test_bound_hosts():
    assert bound_places(["API.example.com", "[::1]:8443", "api.example.com:443"]) == [
        Place("api.example.com", 443),
        Place("::1", 8443),
    ]


@pytest.mark.parametrize(
    "host", ["*", "*.example.com", "https://example.com", "example.com/path", "user@example.com", "0x7f.1"]
)
def test_hosts_that_cannot_be_bound(host):
    with pytest.raises(InvalidRequest) as refused:
        bound_places(["example.com", host])
    assert refused.value.param == "hosts.1"
