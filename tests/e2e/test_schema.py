"""schemathesis over /openapi.json: whatever it thinks up, the API answers as documented and never with a 500."""

from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from functions.chat.app import create_api
from shared.bootstrap import Services
from shared.settings import Settings
from tests.e2e.conftest import ADMIN_KEY, Stack

load_all_checks()


@schemathesis.serializer("application/x-ndjson")
def as_text(_context: Any, value: Any) -> bytes:
    """An imported file is any text to the schema."""
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT = create_api(Services(Settings())).openapi()

schema = schemathesis.openapi.from_dict(DOCUMENT)


def test_the_served_document_is_the_one_that_is_tested(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/openapi.json").json() == DOCUMENT


@schema.parametrize()
@hypothesis_settings(max_examples=8, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_operation(case: Any, stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    case.call_and_validate(base_url=stack.url, headers=headers, checks=CHECKS, timeout=60)
