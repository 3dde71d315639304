"""What the first start puts in: the microDAO, its agents and tools, and two API keys."""

from contextlib import suppress
from dataclasses import dataclass

from shared.bootstrap import Services
from shared.errors import Conflict

MICRODAO = "microdao:daarion"
AGENT, AGENT_NAME, BLUEPRINT = "agent:sofia", "Sofia", "sofia"
MEMBER_ROLES = ("member",)
ADMIN_ROLES = ("admin", "operator")


@dataclass(frozen=True, slots=True)
class SeededKeys:
    """The secrets that may be shown now; None where one was made at an earlier start."""

    api_key: str | None
    admin_key: str | None


async def seed(services: Services) -> SeededKeys:
    """Bring the seed data up to date. What is there already stays as it is."""
    await services.tenants.ensure(MICRODAO, "DAARION")
    await services.agents.seed(MICRODAO)
    with suppress(Conflict):
        await services.agents.create_agent(MICRODAO, AGENT, AGENT_NAME, BLUEPRINT)
    first_start = not await services.keys.list(MICRODAO, "", 1)
    return SeededKeys(
        await _key(services, MEMBER_ROLES, "first member key", services.settings.api_key, first_start),
        await _key(services, ADMIN_ROLES, "first admin key", services.settings.admin_key, first_start),
    )


async def _key(services: Services, roles: tuple[str, ...], name: str, chosen: str, first_start: bool) -> str | None:
    """The key chosen in the environment; else, at the first start, a random one."""
    if not chosen and not first_start:
        return None
    return (await services.keys.create(MICRODAO, roles, name, secret=chosen or None)).secret
