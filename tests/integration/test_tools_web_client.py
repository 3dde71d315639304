"""The client that tools go out by, against real servers on this machine."""

import asyncio
import datetime
import gzip
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.tools.model import ToolFailed, ToolUncertain
from shared.tools.web import transport
from shared.tools.web.addresses import Place, Reach
from shared.tools.web.client import WebClient, WebRequest
from shared.tools.web.errors import AddressRefused, NothingSent, UnusableAnswer
from shared.tools.web.transport import resolve
from tests.fakes.scripted_server import ScriptedServer, hang_up, response, say_nothing

PUBLIC = "93.184.216.34"

# {port} is where a server on 127.0.0.1 really listens, so that whoever gets through is seen.
HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://localhost.:{port}/",
    "http://[::1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://127.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1%25lo]:{port}/",
    "http://100.64.0.1:{port}/",
    "http://198.18.0.1:{port}/",
    "http://192.0.0.192/opc/v2/instance/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "http://192.168.1.1:{port}/",
    "http://public.test@127.0.0.1:{port}/",
    "http://public.test%2f@127.0.0.1:{port}/",
    "http://mixed.test:{port}/",
    "http://inside.test:{port}/",
    "http://mapped.test:{port}/",
    "http://public.test:22/",
    "ftp://public.test/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "//127.0.0.1:{port}/",
    "http:///",
    "http://pub lic.test/",
    "http://public.test:99999/",
]  # fmt: skip

TABLE = {
    "public.test": [PUBLIC],
    "mixed.test": [PUBLIC, "10.0.0.1"],
    "inside.test": ["127.0.0.1"],
    "mapped.test": ["::ffff:127.0.0.1"],
}


async def by_table(place: Place) -> list[str]:
    """The table's names; whatever else as the system does it, which reads every old way to write an address."""
    return TABLE.get(place.host) or await resolve(place)


def client(*private: ScriptedServer, ports: tuple[int, ...] = (80, 443), resolver=by_table) -> WebClient:
    places = frozenset(Place("127.0.0.1", server.port) for server in private)
    return WebClient(Reach(ports=frozenset(ports), private=places), resolver)


def get(url: str, **fields) -> WebRequest:
    return WebRequest(microdao_id="microdao:test", method=fields.pop("method", "GET"), url=url, **fields)


def post(url: str, **fields) -> WebRequest:
    return get(url, method="POST", body=b'{"order": 1}', **fields)


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_urls_are_refused(url):
    async with ScriptedServer() as server:
        with pytest.raises(AddressRefused):
            await client(ports=(80, 443, server.port)).send(get(url.format(port=server.port)))
        assert server.connections == 0


@pytest.mark.parametrize("url", [url for url in HOSTILE if url not in ("//127.0.0.1:{port}/", "http:///")])
async def test_redirects_to_hostile_urls_are_refused(url):
    async with ScriptedServer() as inner, ScriptedServer() as outer:
        outer.script = response(b"", "302 Found", location=url.format(port=inner.port).encode().decode("latin-1"))
        with pytest.raises((UnusableAnswer, AddressRefused)):
            await client(outer, ports=(80, 443, inner.port)).send(get(outer.url, max_redirects=3))
        assert (outer.connections, inner.connections) == (1, 0)


async def test_the_same_server_is_reached_when_it_is_listed():
    async with ScriptedServer() as server:
        answer = await client(server).send(
            post(f"{server.url}/orders?x=1", headers={"content-type": "application/json"})
        )
        assert (answer.status, answer.body) == (200, b'{"ok": true}')
        assert [(one.method, one.target, one.body) for one in server.seen] == [("POST", "/orders?x=1", b'{"order": 1}')]
        assert server.seen[0].headers["host"] == f"127.0.0.1:{server.port}"


async def test_a_name_is_looked_up_once_and_checked_each_time():
    lookups = []

    async def rebinding(place: Place) -> list[str]:
        lookups.append(place)
        return ["127.0.0.1"] if len(lookups) > 1 else [PUBLIC]

    async with ScriptedServer() as server:
        web = client(ports=(server.port,), resolver=rebinding)
        deadline = asyncio.get_running_loop().time() + 0.3
        with pytest.raises(NothingSent):  # it went for the public address, which this machine cannot reach
            await web.send(get(f"http://rebinding.test:{server.port}/"), deadline)
        assert len(lookups) == 1
        with pytest.raises(AddressRefused):
            await web.send(get(f"http://rebinding.test:{server.port}/"))
        assert (len(lookups), server.connections) == (2, 0)


async def test_the_next_address_is_tried_when_one_is_dead():
    async def two(place: Place) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with ScriptedServer() as server:
        reach = Reach(private=frozenset({Place("service.internal", server.port)}))
        answer = await WebClient(reach, two).send(get(f"http://service.internal:{server.port}/"))
        assert answer.status == 200
        assert server.seen[0].headers["host"] == f"service.internal:{server.port}"


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    async with ScriptedServer() as proxy, ScriptedServer() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await client(server).send(get(server.url))
        assert (proxy.connections, server.connections) == (0, 1)


async def test_redirects_are_not_followed_unless_asked():
    async with ScriptedServer() as target, ScriptedServer(response(b"", "302 Found")) as server:
        server.script = response(b"", "302 Found", location=f"{target.url}/there")
        answer = await client(server, target).send(get(server.url))
        assert (answer.status, target.connections) == (302, 0)


async def test_a_redirect_to_another_host_takes_no_secret_along():
    async with ScriptedServer() as target, ScriptedServer() as server:
        server.script = response(b"", "302 Found", location=f"{target.url}/there")
        headers = {
            "Authorization": "Bearer s3cret",
            "X-Api-Key": "s3cret",
            "Cookie": "s3cret",
            "Accept": "application/json",
        }
        answer = await client(server, target).send(get(server.url, headers=headers, max_redirects=1))
        assert answer.status == 200
        assert b"s3cret" in server.seen[0].raw_head
        assert b"s3cret" not in target.seen[0].raw_head
        assert target.seen[0].headers["accept"] == "application/json"


async def test_a_redirect_within_the_host_keeps_headers():
    async with ScriptedServer() as server:
        answers = iter([response(b"", "307 Temporary Redirect", location="/there"), response(b"{}")])

        async def script(writer):
            await next(answers)(writer)

        server.script = script
        await client(server).send(post(server.url, headers={"Authorization": "Bearer s3cret"}, max_redirects=1))
        assert [(one.method, one.target, one.body) for one in server.seen][1] == ("POST", "/there", b'{"order": 1}')
        assert server.seen[1].headers["authorization"] == "Bearer s3cret"


async def test_a_body_goes_to_no_other_host():
    async with ScriptedServer() as target, ScriptedServer() as server:
        server.script = response(b"", "307 Temporary Redirect", location=f"{target.url}/there")
        with pytest.raises(UnusableAnswer, match="another host"):
            await client(server, target).send(post(server.url, max_redirects=3))
        assert target.connections == 0


async def test_redirects_have_an_end():
    async with ScriptedServer() as server:
        server.script = response(b"", "302 Found", location="/again")
        answer = await client(server).send(get(server.url, max_redirects=50))
        assert (answer.status, server.connections) == (302, 4)


async def test_no_cookie_is_kept():
    async with ScriptedServer(response(b"{}", set_cookie="session=1")) as server:
        web = client(server)
        await web.send(get(server.url))
        await web.send(get(server.url))
        assert all("cookie" not in seen.headers for seen in server.seen)


async def test_an_answer_may_be_packed():
    packed = gzip.compress(b'{"a": 1}' * 10_000)
    async with ScriptedServer(response(packed, content_encoding="gzip", content_type="text/plain")) as server:
        assert (await client(server).send(get(server.url))).body == b'{"a": 1}' * 10_000
        assert server.seen[0].headers["accept-encoding"] == "gzip"


async def test_a_decompression_bomb_is_cut_short():
    bomb = gzip.compress(b"0" * (1 << 28), 9)
    async with ScriptedServer(response(bomb, content_encoding="gzip")) as server:
        began = time.process_time()
        with pytest.raises(UnusableAnswer, match="larger than 1048576 bytes"):
            await client(server).send(get(server.url))
        assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "script",
    [
        response(b"x" * (1 << 20) + b"x", content_type="text/plain"),
        response(b"x" * 100, content_encoding="gzip"),
        response(gzip.compress(b"{}" * 1000)[:-9], content_encoding="gzip"),
        response(gzip.compress(gzip.compress(b"{}")), content_encoding="gzip, gzip"),
        response(b"{}", content_encoding="br"),
        response(b"{}", content_type="application/octet-stream"),
        response(b"{}", content_type=""),
    ],
)
async def test_answers_that_are_not_taken(script):
    async with ScriptedServer(script) as server:
        with pytest.raises(UnusableAnswer):
            await client(server).send(get(server.url))


@pytest.mark.parametrize("body", [b"x" * 5000, b"x" * (2 << 20)], ids=["whole", "too large"])
async def test_an_error_is_told_whole_or_not_at_all(body):
    async with ScriptedServer(response(body, "400 Bad Request", content_type="text/plain")) as server:
        answer = await client(server).send(get(server.url))
        assert (answer.status, answer.body) == (400, body if len(body) < 1 << 20 else b"")


async def test_an_answer_of_exactly_the_cap_is_taken():
    async with ScriptedServer(response(b"x" * (1 << 20), content_type="text/plain")) as server:
        assert len((await client(server).send(get(server.url))).body) == 1 << 20


async def test_an_endless_answer_without_a_length_is_cut_short():
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with ScriptedServer(endless) as server:
        with pytest.raises(UnusableAnswer, match="larger"):
            await client(server).send(get(server.url))


async def slow_drip(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def half(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\nhalf")
    await writer.drain()


async def endless_headers(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-filler: " + b"x" * 8000 + b"\r\n")
        await writer.drain()


async def garbage(writer):
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@pytest.mark.parametrize("script", [hang_up, say_nothing, slow_drip, half, endless_headers, garbage])
async def test_no_whole_answer_after_the_request_went_out_is_uncertain(script):
    async with ScriptedServer(script) as server:
        deadline = asyncio.get_running_loop().time() + 0.4
        began = time.monotonic()
        with pytest.raises(ToolUncertain, match="may have acted on it"):
            await client(server).send(post(server.url), deadline)
        assert time.monotonic() - began < 2.0
        assert server.seen[0].body == b'{"order": 1}'


async def test_nothing_was_sent_where_nobody_listens():
    async with ScriptedServer() as server:
        web = client(server)
    with pytest.raises(NothingSent) as failure:
        await web.send(post(server.url))
    assert (failure.value.is_transient, isinstance(failure.value, ToolUncertain)) == (True, False)


async def test_a_name_without_an_address_is_a_failure_that_may_pass():
    async def nobody(place: Place) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(NothingSent, match="cannot be reached"):
        await client(resolver=nobody).send(get("http://nobody.test/"))


async def test_a_slow_resolver_counts_as_connecting(monkeypatch):
    async def slow(place: Place) -> list[str]:
        await asyncio.sleep(60)
        return [PUBLIC]

    deadline = asyncio.get_running_loop().time() + 0.2
    with pytest.raises(NothingSent) as failure:
        await client(resolver=slow).send(get("http://slow.test/"), deadline)
    assert failure.value.code == "tool_timeout"


async def test_one_microdao_takes_eight_slots_of_a_host_and_others_have_their_own():
    gate = asyncio.Event()

    async def wait(writer):
        await gate.wait()
        await response(b"{}")(writer)

    async with ScriptedServer(wait) as server:
        web = client(server)
        mine = [asyncio.create_task(web.send(get(server.url))) for _ in range(12)]
        await asyncio.sleep(0.3)
        assert server.most_at_once == 8
        other = WebRequest(microdao_id="microdao:other", method="GET", url=server.url)
        theirs = asyncio.create_task(web.send(other))
        await asyncio.sleep(0.2)
        assert server.most_at_once == 9
        gate.set()
        assert {answer.status for answer in await asyncio.gather(*mine, theirs)} == {200}
        assert web._slots._gates == {}


async def test_waiting_for_a_slot_ends_with_the_deadline_and_nothing_sent():
    async with ScriptedServer(say_nothing) as server:
        web = client(server)
        now = asyncio.get_running_loop().time()
        busy = [asyncio.create_task(web.send(get(server.url), now + 1.0)) for _ in range(8)]
        await asyncio.sleep(0.2)
        with pytest.raises(NothingSent):
            await web.send(get(server.url), now + 0.4)
        outcomes = await asyncio.gather(*busy, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ToolUncertain}


@pytest.fixture
def tls() -> Iterator[ssl.SSLContext]:
    """A server's context with a certificate for service.test only, which the client's context trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("service.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, pem, key)
    transport._tls_context.cache_clear()
    transport._tls_context().load_verify_locations(cadata=pem.decode())
    yield context
    transport._tls_context.cache_clear()


def _load(context: ssl.SSLContext, pem: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write(private + pem)
        file.flush()
        context.load_cert_chain(file.name)


async def test_tls_and_host_keep_the_name_of_a_pinned_address(tls):
    names = []
    tls.sni_callback = lambda connection, name, context: names.append(name)

    async def here(place: Place) -> list[str]:
        return ["127.0.0.1"]

    async with ScriptedServer(tls=tls) as server:
        places = frozenset({Place("service.test", server.port), Place("other.test", server.port)})
        web = WebClient(Reach(private=places), here)
        assert (await web.send(get(f"https://service.test:{server.port}/"))).status == 200
        assert server.seen[0].headers["host"] == f"service.test:{server.port}"
        assert names == ["service.test"]
        with pytest.raises(ToolFailed) as failure:
            await web.send(post(f"https://other.test:{server.port}/"))
        assert (type(failure.value), len(server.seen)) == (NothingSent, 1)
