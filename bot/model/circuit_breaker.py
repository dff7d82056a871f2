"""What a process knows of a model that is away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy

from bot.errors import ModelBusy, ModelError, ModelLoading, ModelSilent, ModelUnavailable

log = logging.getLogger(__name__)

# Another try may find it gone. The other failures need an operator, or another question.
_PASSING = (ModelBusy, ModelLoading, ModelSilent, ModelUnavailable)
_LONGEST_ASKED = 300.0  # seconds; a typo in a server's Retry-After must not silence us for a day


class CircuitBreaker:
    """Keeps all answers of a process from hammering one model that is away.

    Closed it lets everybody ask. It opens after `failures` in a row for `rest` seconds, and after a
    single one for the time that the server asked for (Retry-After, RFC 9110, 10.2.3). Then it lets
    one answer at a time find out, and each that fails doubles the rest up to `longest_rest`; the
    first delta closes it.

    Each process has its own: whether a model can be reached depends on where one stands, a probe of
    each process is no hammering, and a breaker in Redis would be one more thing that can be away.
    """

    def __init__(
        self,
        *,
        name: str,
        failures: int,
        rest: float,
        longest_rest: float,
        clock: Callable[[], float],
    ) -> None:
        self.error: ModelError | None = None  # while it is open: why
        self.opened_at = 0.0
        self._name = name
        self._limit = failures
        self._rest = rest
        self._longest_rest = longest_rest
        self._clock = clock
        self._failures = 0  # in a row
        self._next_rest = rest
        self._rests_until = 0.0
        self._probing = False

    @property
    def pause(self) -> float:
        """Seconds until one may ask, or look again; 0 is now."""
        if not self.error:
            return 0.0
        return self._rest if self._probing else max(self._rests_until - self._clock(), 0.0)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Learn from a try that lasts until its first delta; one that is given up teaches nothing.

        Only who has seen no `pause` may try.
        """
        probing = self.error is not None
        self._probing = self._probing or probing
        try:
            yield
        except ModelError as error:
            if is_passing(error):
                self._fail(error, probing=probing)
            else:
                self._close()
            raise
        else:
            self._close()
        finally:
            if probing:
                self._probing = False

    def _fail(self, error: ModelError, *, probing: bool) -> None:
        self._failures += 1
        asked = min(error.retry_after or 0.0, _LONGEST_ASKED)
        if self.error and not probing:
            return  # it began before the breaker opened
        if not (self.error or asked or self._failures >= self._limit):
            return
        if not self.error:
            self.opened_at = self._clock()
            log.warning("The model %s is left alone until it answers again: %s", self._name, error)
        # A copy holds no traceback, and so no prompt.
        self.error = copy(error)
        self._rests_until = self._clock() + max(self._next_rest, asked)
        self._next_rest = min(2 * self._next_rest, self._longest_rest)

    def _close(self) -> None:
        if self.error:
            log.warning("The model %s is back", self._name)
        self.error, self._failures, self._next_rest = None, 0, self._rest


def is_passing(error: ModelError) -> bool:
    """Tell a failure that another try may find gone."""
    return isinstance(error, _PASSING)
