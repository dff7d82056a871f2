"""The one door for every event."""

from __future__ import annotations

from bot.domain import Turn


class Intake:
    """Admits turns; adapters acknowledge a platform's event only after `admit` returned."""

    async def admit(self, turn: Turn) -> bool:
        """Store the turn and return True; False when it is known already.

        Raises Refused (its `apology` is for the person) and StoreUnavailable.
        """
        raise NotImplementedError

    async def stop(self, turn_id: str) -> bool:
        """Ask for the end of a turn's reply; False when it is not being worked on (any more)."""
        raise NotImplementedError

    async def forget(self, turn_id: str) -> None:
        """Drop a turn whose question was deleted: waiting, running or remembered."""
        raise NotImplementedError
