"""The tools that people have allowed for always."""

from __future__ import annotations

from bot import audit
from bot.domain import Person, Turn
from bot.store import Store
from bot.tools.toolset import Offered
from bot.turns.script import person_key


class AllowedTools:
    """What people have allowed for always, in Redis, without an expiry. Raises StoreUnavailable.

    A hash for each person has the digests of tools as they were described then, by their full
    names. The verb `decide` writes it, and it is forgotten with the person.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def is_allowed(self, turn: Turn, offered: Offered) -> bool:
        """Whether the person of a turn has allowed a tool for always, as it is described now."""
        key = self._key(turn.key.platform, turn.person)
        return bool(await self._store.command("HGET", key, offered.full_name) == offered.digest)

    async def names(self, platform: str, person: Person) -> list[str]:
        """Return the full names of the tools that a person has allowed."""
        return sorted(await self._store.command("HKEYS", self._key(platform, person)))

    async def revoke(self, platform: str, person: Person, name: str) -> bool:
        """Ask the person again for the tool of this full name; False if it was not allowed."""
        is_revoked = bool(await self._store.command("HDEL", self._key(platform, person), name))
        if is_revoked:
            audit.note("revoked", tool=name, platform=platform, person=person.id)
        return is_revoked

    def _key(self, platform: str, person: Person) -> str:
        return self._store.key("allowed", person_key(platform, person))
