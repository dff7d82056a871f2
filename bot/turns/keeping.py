"""How long a conversation is remembered, by its server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from bot.domain import ThreadKey

EVERYWHERE: Mapping[str, int] = {}  # days by server: no server is different
_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how many seconds keys are kept, and whether conversations are remembered.

    In a server of `server_days` it is so many days; for 0 nothing is remembered there, and keys
    are kept for a day, because questions may wait.
    """

    seconds: float
    remembers: bool
    server_days: Mapping[str, int]

    def ms(self, thread: ThreadKey) -> int:
        """Return how long the keys of a thread are kept."""
        return self._by_server().get(thread.workspace, int(self.seconds * 1000))

    @property
    def longest_ms(self) -> int:
        """How long keys are kept that several servers share."""
        return max(int(self.seconds * 1000), *self._by_server().values(), 0)

    def remembers_in(self, thread: ThreadKey) -> bool:
        """Whether what is said in a thread is remembered."""
        return self.server_days.get(thread.workspace, self.remembers) > 0

    def written(self) -> str:
        """Return the times as the scripts read them; see `prelude.lua`."""
        usual = int(self.seconds * 1000)
        if not self.server_days:
            return str(usual)
        by_server = {quote(it, safe=""): ms for it, ms in self._by_server().items()}
        return json.dumps({**by_server, "": usual, "*": self.longest_ms})

    def _by_server(self) -> dict[str, int]:
        return {it: max(days, 1) * _DAY_MS for it, days in self.server_days.items()}
