"""Keeps the steps of a turn in its record, under its lease."""

from __future__ import annotations

from bot.domain import Consent
from bot.turns.lease import Lease


class TurnJournal:
    """The journal of a turn that is leased; satisfies `bot.tools.steps.Journal`."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self.saved = dict(lease.taken.steps)
        self.effects = set(lease.taken.effects)

    async def save(self, name: str, text: str, *, effect: str = "", counts: bool = False) -> None:
        """Save a text before anything else is done, and the `effect` that begins with it.

        Never returns after a stop: the reply ends. Raises StoreUnavailable, LeaseLost,
        QuestionEdited and QuotaUsed.
        """
        await self._lease.save_step(name, text, effect=effect, counts=counts)
        self.saved[name] = text
        if effect:
            self.effects.add(effect)

    async def settle(self, call_id: str, consent: Consent) -> None:
        """Store an answer for a call unless there is one."""
        found = await self._lease.close_consent(call_id, consent)
        self.saved[f"consent:{call_id}"] = found
