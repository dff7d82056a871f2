"""How often the app may call each method, in each workspace."""

from __future__ import annotations

from collections.abc import Mapping

from tests.emulators.clock import Clock
from tests.emulators.slack.arguments import text
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.rates import Buckets, Rate, per_minute
from tests.emulators.slack.workspace import Workspace

# docs: conversations.history and conversations.replies, for apps sold outside of the Marketplace.
UNLISTED = {"conversations.history": per_minute(1), "conversations.replies": per_minute(1)}


class Limits:
    """Counts calls per method and workspace, posts per channel too (docs: Rate limits).

    `rates` takes the place of the documented ones, and counts posts per channel alone. `share`
    multiplies each.
    """

    def __init__(
        self, clock: Clock, rates: Mapping[str, Rate], *, unlisted: bool, share: float = 1.0
    ) -> None:
        self._buckets = Buckets(clock)
        self._share = share
        self._rates = {**UNLISTED, **rates} if unlisted else rates

    def wait(self, name: str, workspace: Workspace, args: Payload) -> float:
        """Take one call and return 0, or the seconds until there is one to take."""
        method = METHODS[name]
        team, place = f"{name} {workspace.team_id}", f"{name} {text(args, 'channel')}"
        counts = {team: method.rate}
        if override := self._rates.get(name):
            counts = {place if method.channel_rate else team: override}
        elif method.channel_rate:
            counts[place] = method.channel_rate
        return self._buckets.take({each: rate.times(self._share) for each, rate in counts.items()})
