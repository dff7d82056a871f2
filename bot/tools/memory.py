"""A journal for a question that is lost with its process, as one of `bot ask` is."""

from __future__ import annotations

from bot.domain import Consent


class MemoryJournal:
    """Keeps the steps of one question in memory; satisfies `bot.tools.steps.Journal`.

    Nobody can be asked, so each call with effects gets the same `consent`.
    """

    def __init__(self, consent: Consent) -> None:
        self.saved: dict[str, str] = {}
        self.effects: set[str] = set()
        self._consent = consent

    async def save(self, name: str, text: str, *, effect: str = "", counts: bool = False) -> None:
        """Save a text, and the `effect` that begins with it."""
        self.saved[name] = text
        self.effects |= {effect} - {""}

    async def settle(self, call_id: str, consent: Consent) -> None:
        """Give the consent that all calls have; no server's question gets an answer from it."""
        self.saved[f"consent:{call_id}"] = self._consent
