"""URLs, and what a redirect makes of a request. Pure functions."""

from dataclasses import dataclass, replace

import httpx2

from shared.tools.web.addresses import Place
from shared.tools.web.errors import AddressRefused

MOST_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
_KEPT_ON_ANOTHER_HOST = ("accept", "user-agent")
_OF_A_BODY = ("content-type",)


@dataclass(frozen=True, slots=True)
class Leg:
    """One exchange with one server."""

    method: str
    url: httpx2.URL
    headers: dict[str, str]
    body: bytes

    @property
    def place(self) -> Place:
        """Where it goes."""
        return place_of(self.url)


def next_leg(leg: Leg, status: int, location: str) -> Leg:
    """The exchange that a redirect asks for; another origin gets neither secrets nor body. Raises AddressRefused."""
    following = replace(leg, url=_target(leg.url, location))
    if status == 303 or (status in (301, 302) and leg.method == "POST"):
        headers = {name: value for name, value in leg.headers.items() if name.lower() not in _OF_A_BODY}
        following = replace(following, method="GET", body=b"", headers=headers)
    if following.place == leg.place and following.url.scheme == leg.url.scheme:
        return following
    if following.body:
        raise AddressRefused(f"{leg.place} wants what it was sent to go to another host, which is refused")
    kept = {name: value for name, value in leg.headers.items() if name.lower() in _KEPT_ON_ANOTHER_HOST}
    return replace(following, headers=kept)


def parse_url(text: str) -> httpx2.URL:
    """The URL, without its fragment. Raises AddressRefused for what is no plain http(s) URL with a host."""
    try:
        url = httpx2.URL(text).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError):
        raise AddressRefused("the URL is not valid") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise AddressRefused("the URL must begin with https:// or http:// and name a host")
    if url.userinfo:
        raise AddressRefused("the URL must not hold a user name")
    return url


def place_of(url: httpx2.URL) -> Place:
    """Where a parsed URL leads."""
    return Place(url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))


def _target(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        target = parse_url(str(url.join(location)))
    except (httpx2.InvalidURL, ValueError):
        raise AddressRefused(f"{place_of(url)} redirects to a URL that is not valid") from None
    if url.scheme == "https" and target.scheme == "http":
        raise AddressRefused(f"{place_of(url)} redirects from https to http, which is refused")
    return target
