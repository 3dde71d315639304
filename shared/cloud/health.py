"""Asks a neighbour whether it is up."""

import asyncio


async def answers_ok(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET of ``url`` gives 200 in time."""

    def ask() -> bool:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own address
                return int(response.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    return await asyncio.to_thread(ask)
