"""Which addresses tools may reach, and what answers mean: pure rules."""

import ipaddress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tools.model import ToolFailed
from shared.tools.web.addresses import Place, Reach, host_fault, is_public, parse_place, read_reach
from shared.tools.web.answers import Answer, check_status, is_readable, pick, retry_after_s, value_of
from shared.tools.web.errors import BusyService, UnusableAnswer

CLOSED = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1",
]  # fmt: skip
OPEN = "1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 192.0.1.1 ::ffff:8.8.8.8 2606:4700::1111 2a00:1450::1 2001:4860::8888"


@pytest.mark.parametrize("address", [*CLOSED, "", "localhost", "0x7f.1", "2130706433", "127.1", "0177.0.0.1"])
def test_closed_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", OPEN.split())
def test_open_addresses(address):
    assert is_public(address)


@given(st.ip_addresses())
def test_nothing_that_the_standard_library_calls_private_is_open(address):
    if not address.is_global or address.is_multicast or address.is_loopback or address.is_reserved:
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
        assert mapped or not is_public(str(address))


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_as_open_as_what_it_stands_for(address):
    assert is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize(
    "host", ["example.com", "api-1.x_y.io", "8.8.8.8", "2606:4700::1111", "xn--e1afmkfd.xn--p1ai", "a"]
)
def test_plain_hosts(host):
    assert host_fault(host) is None


@pytest.mark.parametrize(
    "host",
    ["", ".", "a.", "-a", "a b", "a\r\nb", "a/b", "a%2e", "1", "127.1", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1",
     "1.2.3.4.", "1.2.3.4.5", "a.0x", "a.1", "256.1.1.1", "::1%lo", ":::", "x" * 254],
)  # fmt: skip
def test_hosts_in_disguise(host):
    assert host_fault(host) is not None


def test_private_places_are_exact():
    reach = Reach(private=frozenset({Place("127.0.0.1", 9000)}))
    assert reach.place_fault(Place("127.0.0.1", 9000)) is None
    assert reach.address_fault(Place("127.0.0.1", 9000), "127.0.0.1") is None
    assert reach.address_fault(Place("127.0.0.2", 443), "127.0.0.1") is not None
    assert reach.place_fault(Place("127.0.0.1", 9001)) == "port 9001 is not open to tools"
    assert reach.address_fault(Place("localhost", 9000), "127.0.0.1") is not None
    assert reach.place_fault(Place("example.com", 25)) == "port 25 is not open to tools"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9000", Place("127.0.0.1", 9000)),
        (" Platform:80 ", Place("platform", 80)),
        ("[::1]:8080", Place("::1", 8080)),
    ],
)
def test_places(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:0", "host:65536", "host:٣", ":80", "http://host:80", "::1", "*:80"]
)
def test_what_is_no_place(text):
    with pytest.raises(ValueError, match=r"must be|names no host"):
        parse_place(text)


def test_a_place_with_a_default_port():
    assert parse_place("API.example.com", 443) == Place("api.example.com", 443)
    assert parse_place("[::1]", 443) == Place("::1", 443)


def test_reach_of_the_settings():
    reach = read_reach(" 80, 8443,", "127.0.0.1:9000, [::1]:80")
    assert reach == Reach(ports=frozenset({80, 8443}), private=frozenset({Place("127.0.0.1", 9000), Place("::1", 80)}))
    assert reach.with_private(Place("a", 1)).private == reach.private | {Place("a", 1)}
    assert read_reach("", "") == Reach(ports=frozenset())
    for ports, private in (("0", ""), ("x", ""), ("80", "127.0.0.1"), ("80", "0x7f.1:80")):
        with pytest.raises(ValueError, match=r"is not a port|must be|names no host"):
            read_reach(ports, private)


def answer(status=200, body=b"", kind="application/json", **headers):
    return Answer(
        status, {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}, body
    )


@pytest.mark.parametrize(
    "kind", ["application/json", "application/problem+json; charset=utf-8", "text/plain", "text/html"]
)
def test_readable(kind):
    assert is_readable(kind)


@pytest.mark.parametrize(
    "kind", ["", "application/octet-stream", "image/png", "application/pdf", "multipart/form-data", "text"]
)
def test_unreadable(kind):
    assert not is_readable(kind)


def test_values():
    assert value_of(answer(body=b'{"a": [1, 2.5, null, "\xd1\x8f"]}')) == {"a": [1, 2.5, None, "я"]}
    assert value_of(answer(body=b"", status=204)) is None
    assert value_of(answer(body="я".encode("cp1251"), kind="text/plain; charset=windows-1251")) == "я"
    assert value_of(answer(body=b"a\0b\xff", kind="text/plain; charset=nonsense")) == "a\ufffdb\ufffd"


@pytest.mark.parametrize("body", [b"{", b"NaN", b'{"a": 1}{"b": 2}', b"\xff", b"[" * 65 + b"]" * 65, b"[" * 500_000])
def test_json_that_is_none_or_too_deep(body):
    with pytest.raises(UnusableAnswer):
        value_of(answer(body=body))


def test_statuses():
    check_status(answer(201), "the service")
    with pytest.raises(UnusableAnswer, match="redirects elsewhere"):
        check_status(answer(302), "the service")
    with pytest.raises(ToolFailed, match="the service answered 404: no such�thing") as missing:
        check_status(answer(404, b"no\r\nsuch\x00thing", kind="text/plain"), "the service")
    assert (missing.value.code, missing.value.is_transient) == ("tool_failed", False)
    with pytest.raises(ToolFailed) as forbidden:
        check_status(answer(403), "the service")
    assert forbidden.value.code == "unauthorized"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_busy_services(status):
    with pytest.raises(BusyService) as busy:
        check_status(answer(status, retry_after="7"), "the service")
    assert (busy.value.status, busy.value.retry_after_s, busy.value.is_transient) == (status, 7.0, True)


def test_retry_after():
    assert retry_after_s("120") == 120.0
    assert retry_after_s("999999") == 3600.0
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after_s(in_a_minute) or 0) <= 60
    assert retry_after_s("Mon, 01 Jan 2024 00:00:00 GMT") == 0.0
    assert [retry_after_s(text) for text in ("", "soon", "-5", "1e9", "Mon, 99 Jan")] == [None] * 5


def test_picking():
    value = {"data": {"items": [{"name": "a"}, {"name": "b"}]}}
    assert pick(value, "data.items.1.name") == "b"
    for path in ("data.other", "data.items.2", "data.items.-1", "data.items.name", "data.items.0.name.x"):
        with pytest.raises(KeyError):
            pick(value, path)
