"""Routes that call models. They are the busiest, so their arguments are put together here.

FastAPI reads their signatures for /openapi.json alone: its own way from a request to an endpoint took a fifth of a
call's CPU time.
"""

from collections.abc import Callable
from typing import Any, get_type_hints

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from functions.chat.error_responses import from_validation, no_body
from functions.chat.idempotency import Handle, IdempotentRoute
from functions.chat.model_answers import client_hints


class ModelRoute(IdempotentRoute):
    """A route whose endpoint, if it is a POST's, takes body, services, principal and client's hints, in this order."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._answer = self.get_route_handler()

    @property
    def calls_model(self) -> bool:
        """Whether it is one of those."""
        return "POST" in (self.methods or ())

    def handler(self) -> Handle:
        """What answers a request without an idempotency key."""
        if not self.calls_model:
            return super().handler()
        endpoint: Callable[..., Any] = self.endpoint
        model: type[BaseModel] = next(iter(get_type_hints(endpoint).values()))

        async def call(request: Request) -> Response:
            context = request.scope["daarion"]
            body = _validated(model, context["json"])
            response: Response = await endpoint(
                body, request.app.state.services, context["principal"], client_hints(request.headers)
            )
            return response

        return call

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point for a request that is known to be for this route. Raises ApiError."""
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


def _validated(model: type[BaseModel], document: Any) -> BaseModel:
    """Raises InvalidRequest."""
    if document is None:
        raise no_body()
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False, include_context=False, include_input=False)) from None
