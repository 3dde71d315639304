"""Which hosts, ports and addresses a tool may reach. Pure rules, no I/O.

Sources: iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry; url.spec.whatwg.org (host
parser: a host that ends in a number is an IPv4 address or nothing).
"""

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

DEFAULT_PORTS = frozenset({80, 443, 8080, 8443})

_CLOSED_IPV4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and metadata services (100.100.100.200)
        "127.0.0.0/8",
        "168.63.129.16/32",  # a metadata service on a public address
        "169.254.0.0/16",  # link-local, and metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and a metadata service (192.0.0.192)
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only global unicast is open, without the blocks that stand for other addresses. Outside it lie loopback, mapped and
# compatible addresses, NAT64 (64:ff9b::/96 and 64:ff9b:1::/48), unique local, site-local, link-local and multicast.
_OPEN_IPV6 = IPv6Network("2000::/3")
_CLOSED_IPV6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments, Teredo, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_ENDS_IN_A_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_MAX_HOST = 253


@dataclass(frozen=True, slots=True)
class Place:
    """A host, as a URL names it (lower case, an IPv6 address without brackets), and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """As in a URL's authority."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where a client may go: public addresses on some ports, and exactly these places whatever their address is."""

    ports: frozenset[int] = DEFAULT_PORTS
    private: frozenset[Place] = frozenset()

    def with_private(self, place: Place) -> "Reach":
        """The same with one more private place."""
        return replace(self, private=self.private | {place})

    def place_fault(self, place: Place) -> str | None:
        """Why this place is out of reach before its name is even resolved; None if it is not."""
        if place in self.private:
            return None
        if fault := host_fault(place.host):
            return fault
        if place.port not in self.ports:
            return f"port {place.port} is not open to tools"
        return None

    def address_fault(self, place: Place, address: str) -> str | None:
        """Why an address that the place's name resolved to is out of reach; None if it is not."""
        if place in self.private or is_public(address):
            return None
        return "it is not on the public internet"


def host_fault(host: str) -> str | None:
    """Why a host is neither a name nor an address in its one plain form; None if it is."""
    if not host or len(host) > _MAX_HOST:
        return "it is not the name of a host"
    if ":" in host:
        return None if _parsed(host) else "it is not an IPv6 address"
    if _ENDS_IN_A_NUMBER.search(host):
        return None if _parsed(host) else "it is not an IPv4 address in its usual form"
    return None if _HOST.fullmatch(host) else "it is not the name of a host"


def is_public(address: str) -> bool:
    """Whether a textual IP address is a public unicast address, once unmapped. What is no address is not."""
    parsed = _parsed(address)
    if parsed is None:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if isinstance(parsed, IPv4Address):
        return not any(parsed in block for block in _CLOSED_IPV4)
    return parsed in _OPEN_IPV6 and not any(parsed in block for block in _CLOSED_IPV6)


def parse_place(text: str, default_port: int | None = None) -> Place:
    """``host:port`` (``[v6]:port``), or ``host`` where there is a default. Raises ValueError saying what is wrong."""
    host, _, port = text.strip().lower().rpartition(":")
    if not host or text.rstrip().endswith("]"):
        host, port = text.strip().lower(), "" if default_port is None else str(default_port)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} must be a host and a port, such as 127.0.0.1:9000")
    if fault := host_fault(host):
        raise ValueError(f"{text!r} names no host: {fault}")
    return Place(host, int(port))


def read_reach(ports: str, private: str) -> Reach:
    """The reach that an installation's settings describe: comma-separated ports and ``host:port`` places.

    Raises ValueError saying which of them is wrong.
    """
    numbers = [text.strip() for text in ports.split(",") if text.strip()]
    if wrong := [text for text in numbers if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536)]:
        raise ValueError(f"{wrong[0]!r} is not a port")
    places = frozenset(parse_place(text) for text in private.split(",") if text.strip())
    return Reach(ports=frozenset(map(int, numbers)), private=places)


def _parsed(address: str) -> Address | None:
    try:
        return None if "%" in address else ip_address(address)
    except ValueError:
        return None
