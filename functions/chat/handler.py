"""AWS Lambda behind a buffering API Gateway. For streaming run the image under the Lambda Web Adapter instead."""

from functools import cache
from typing import Any

from functions.chat.app import create_app
from shared.bootstrap import open_services


@cache
def _adapter() -> Any:
    from mangum import Mangum

    # With the lifespan on, Mangum would open and close the pool at every request.
    return Mangum(create_app(open_services()), lifespan="off")


def handler(event: dict[str, Any], context: Any) -> Any:
    """The Lambda entry point."""
    return _adapter()(event, context)
