"""``daarion keys``: works on the database itself, so it also helps who has lost every key."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from shared.bootstrap import Services
from shared.settings import Settings

T = TypeVar("T")

_PAGE = 1000


def list_all(settings: Settings, microdao_id: str, as_json: bool) -> str:
    """A table of the microDAO's keys, or JSON."""
    rows = _with_services(settings, lambda services: services.keys.list(microdao_id, "", _PAGE))
    if as_json:
        return json.dumps({"keys": rows}, default=str)
    lines = [_line(row) for row in rows]
    return "\n".join(lines) or f"{microdao_id} has no keys"


def create(settings: Settings, microdao_id: str, roles: Sequence[str], name: str, as_json: bool) -> str:
    """The new key. Raises InvalidRequest for an unknown role, NotFound for an unknown microDAO."""
    key = _with_services(settings, lambda services: services.keys.create(microdao_id, roles, name))
    if as_json:
        return json.dumps({"id": key.id, "key": key.secret})
    return f"{key.secret}\n(id {key.id}, {', '.join(roles)} of {microdao_id}; it is not shown again)"


def revoke(settings: Settings, microdao_id: str, key_id: str, as_json: bool) -> str:
    """A confirmation. Raises NotFound."""
    _with_services(settings, lambda services: services.keys.revoke(microdao_id, key_id))
    return json.dumps({"id": key_id, "revoked": True}) if as_json else f"{key_id} is revoked"


def _line(row: dict[str, Any]) -> str:
    state = "revoked" if row["revoked_at"] else "active"
    return f"{row['id']}  …{row['hint']}  {state:<8} {', '.join(row['roles']):<16} {row['name']}"


def _with_services(settings: Settings, call: Callable[[Services], Awaitable[T]]) -> T:
    async def run() -> T:
        services = Services(settings)
        try:
            return await call(services)
        finally:
            await services.close()

    return asyncio.run(run())
