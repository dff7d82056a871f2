"""Decides who may use the bot in a place, how much, and how long a question may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from bot import audit
from bot.access.preferences import PreferenceStore, Scope
from bot.access.quotas import Estimate, Prices, Quota, Usage
from bot.access.rules import AccessRules
from bot.domain import Asker, Person, Preferences, ThreadKey, Turn
from bot.errors import NotAllowed, StoreUnavailable
from bot.text.context import newest, shortened
from bot.text.graphemes import CUT, left_out, without_middle
from bot.tokens.counters import estimate
from bot.turns.queue import TurnQueue

MAX_QUESTION = 64_000  # characters of a question that are kept; no platform sends as many

Chosen = Mapping[Scope, Preferences]


class AccessControl:
    """Applies the operator's `rules`, and the `preferences` of threads, channels and servers.

    An answer has at most `longest` tokens. What asks the store raises StoreUnavailable.
    """

    def __init__(
        self,
        *,
        rules: AccessRules,
        preferences: PreferenceStore,
        queue: TurnQueue,
        longest: int,
        prices: Prices,
    ) -> None:
        self.rules = rules
        self._preferences = preferences
        self._queue = queue
        self._longest = longest
        self._prices = prices

    async def check(
        self,
        thread: ThreadKey,
        person: Person,
        asker: Asker,
        *,
        called: bool = True,
        roles: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> Chosen:
        """Return what is chosen for a thread. Raises NotAllowed if the person may not use the bot.

        The error is `repeated` if the person has not `called` the bot, or has read it in the last
        day. `roles` fetches the person's roles, and is called if access depends on them.
        """
        chosen = await self._preferences.read(thread)
        if roles and (self.rules.roles or any(one.roles for one in chosen.values())):
            asker = replace(asker, roles=tuple(await roles()))
        try:
            self.rules.check(thread, person, asker, chosen)
        except NotAllowed as refused:
            if called:
                audit.note_refusal(refused.rule, thread, person)
            refused.repeated = not called or not await self._claim_notice(thread, person)
            raise
        return chosen

    async def quota(self, thread: ThreadKey, person: Person, asker: Asker) -> Quota:
        """Return what a person may use in a day. Raises NotAllowed."""
        return self.rules.quota_of(person, asker, await self.check(thread, person, asker))

    def estimate(self, turn: Turn) -> Estimate:
        """Return what a question, its quote and its answer will need at most.

        The money is that of the dearest model that people may choose, as far as it has a price.
        """
        read = (estimate(turn.quote.text) if turn.quote else 0) + estimate(turn.text)
        prices = filter(None, (self._prices.of(one.label) for one in self._preferences.models))
        money = max((one.of(read, self._longest) for one in prices), default=0)
        return Estimate(self._longest + read, money)

    async def usage(self, thread: ThreadKey, person: Person, asker: Asker) -> Usage:
        """Return what a person, and the server of a thread, have used today. Raises NotAllowed."""
        quota = await self.quota(thread, person, asker)
        return await self._queue.usage(thread, person, quota)

    async def _claim_notice(self, thread: ThreadKey, person: Person) -> bool:
        # A person without access, and the events behind, must not wait for the store.
        with suppress(StoreUnavailable):
            return await self._queue.claim_refusal_notice(thread.platform, person)
        return False


def bounded(turn: Turn) -> Turn:
    """Return a turn without the middle of a question, or a quote, that is too long to store."""
    if turn.quote:
        turn = replace(turn, quote=shortened(turn.quote))
    if turn.context:
        turn = replace(turn, context=tuple(newest(turn.context)))
    if len(turn.text) <= MAX_QUESTION:
        return turn
    text = without_middle(turn.text, MAX_QUESTION - len(CUT))
    return replace(turn, text=text, left_out=left_out(turn.text, text))
