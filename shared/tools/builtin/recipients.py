"""Who or what a task, follow-up or notification is for: an agent, a person or a channel of the microDAO."""

from typing import Literal, NamedTuple

from shared.db.database import Connection
from shared.tools.builtin import store
from shared.tools.model import ToolFailed

RecipientKind = Literal["agent", "user", "channel"]

_MAX_SHOWN = 10
_USER, _CHANNEL = "user:", "channel:"


class Recipient(NamedTuple):
    """``id`` is an agent's id, or ``user:…`` or ``channel:…``."""

    kind: RecipientKind
    id: str

    @property
    def channel_id(self) -> str | None:
        """The channel's own id, if it is one."""
        return self.id.removeprefix(_CHANNEL) if self.kind == "channel" else None


async def find_recipient(connection: Connection, asked: str, *, takes_channel: bool = True) -> Recipient:
    """Whom the text names: ``user:…``, ``channel:…``, or an agent by id or name. Raises ToolFailed.

    The platform keeps no list of people and channels, so any id of theirs is taken.
    """
    asked = asked.strip()
    if asked.startswith(_USER) and len(asked) > len(_USER):
        return Recipient("user", asked)
    if takes_channel and asked.startswith(_CHANNEL) and len(asked) > len(_CHANNEL):
        return Recipient("channel", asked)
    agent_id = await store.find_agent(connection, asked)
    if agent_id is None:
        known = ", ".join(await store.list_agents(connection, _MAX_SHOWN)) or "none"
        others = "user:… for a person" + (", channel:… for a channel" if takes_channel else "")
        raise ToolFailed(f"no agent {asked!r}; agents are: {known}; write {others}")
    return Recipient("agent", agent_id)
