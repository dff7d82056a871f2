"""A circuit breaker for one model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy

from bot.errors import ModelBusy, ModelError, ModelLoading, ModelSilent, ModelUnavailable

log = logging.getLogger(__name__)

# The other failures need an operator, or another question.
_TRANSIENT = (ModelBusy, ModelLoading, ModelSilent, ModelUnavailable)
# How long a probe without a sign of life holds up all other attempts: it may be a long prompt that
# a slow machine reads.
_PROBE_ALONE = 5.0  # seconds
_LONGEST_RETRY_AFTER = 300.0  # seconds; a typo in a header must not silence the bot for a day


class CircuitBreaker:
    """Keeps the answers of a process from hammering a model that is away.

    Closed, it lets every attempt pass. It opens after `failures` in a row for `open_for` seconds,
    and after a single one for the time that the server asked for (Retry-After, RFC 9110, 10.2.3).
    Then it lets attempts pass as probes, one after another: the next may follow at a sign of life,
    since a model may think for minutes before its first delta, or after five seconds. Each probe
    that fails doubles the time up to `longest_open`, and the first delta closes it.

    Each process has its own: whether a model can be reached depends on where a process runs, and a
    breaker in Redis would be one more thing that can be away.
    """

    def __init__(
        self,
        *,
        name: str,
        failures: int,
        open_for: float,
        longest_open: float,
        clock: Callable[[], float],
    ) -> None:
        self.error: ModelError | None = None  # why it is open; None: it is closed
        self.opened_at = 0.0
        self._name = name
        self._limit = failures
        self._open_for = open_for
        self._longest_open = longest_open
        self._clock = clock
        self._failures = 0  # in a row
        self._next_open_for = open_for
        self._open_until = 0.0
        self._reopened_at = 0.0  # at the last failure that counted
        self._probe: object | None = None  # the last one, until its first sign of life
        self._probed_at = 0.0

    @property
    def pause(self) -> float:
        """Seconds until an attempt may pass, or until the next check; 0 is now."""
        if not self.error:
            return 0.0
        now = self._clock()
        alone = self._probed_at + _PROBE_ALONE - now if self._probe else 0.0
        return max(min(alone, self._open_for), self._open_until - now, 0.0)

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """Record one attempt, up to its first delta. Call only if `pause` is 0.

        Yields what is to be called at the first sign of life. Cancelled attempts are ignored.
        """
        began, is_probe, this = self._clock(), self.error is not None, object()
        if is_probe:
            self._probe, self._probed_at = this, began

        def end_probe() -> None:
            if self._probe is this:
                self._probe = None

        try:
            yield end_probe
        except ModelError as error:
            if is_transient(error):
                self._fail(error, probed_at=began if is_probe else None)
            else:
                self._close()
            raise
        else:
            self._close()
        finally:
            end_probe()

    def _fail(self, error: ModelError, *, probed_at: float | None) -> None:
        self._failures += 1
        retry_after = min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER)
        if self.error and (probed_at is None or probed_at < self._reopened_at):
            return  # it began before the breaker opened, or before another probe failed
        if not (self.error or retry_after or self._failures >= self._limit):
            return
        if not self.error:
            self.opened_at = self._clock()
            log.warning("Model %s gets no requests until it answers again: %s", self._name, error)
        # A copy holds no traceback, and so no prompt.
        self.error = copy(error)
        self._reopened_at = self._clock()
        self._open_until = self._reopened_at + max(self._next_open_for, retry_after)
        self._next_open_for = min(2 * self._next_open_for, self._longest_open)

    def _close(self) -> None:
        if self.error:
            log.warning("Model %s is back", self._name)
        self.error, self._failures, self._next_open_for = None, 0, self._open_for


def is_transient(error: ModelError) -> bool:
    """Whether another attempt may succeed."""
    return isinstance(error, _TRANSIENT)
