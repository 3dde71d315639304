"""Webhooks' way out: the address-pinned client that tools use."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.tools.web.errors import UnusableAnswer

if TYPE_CHECKING:
    from shared.tools.web.client import WebClient


class WebPoster:
    """Posts to where tools may go; redirects are not followed."""

    def __init__(self, web: "Callable[[], WebClient]") -> None:
        self._web = web

    async def post(self, microdao_id: str, url: str, headers: dict[str, str], body: bytes, deadline: float) -> int:
        """The status of the answer, whose body does not matter. Raises ToolFailed for no answer."""
        from shared.tools.web.client import WebRequest

        request = WebRequest(microdao_id=microdao_id, method="POST", url=url, headers=headers, body=body)
        try:
            return (await self._web().send(request, deadline)).status
        except UnusableAnswer as answer:
            return answer.status
