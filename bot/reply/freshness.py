"""Measures the writes of one reply, and the delays of its text."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from bot.errors import SurfaceError, WriteDelayed, WriteFailed

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_WRITES = Counter(
    "parley_writes_total",
    "Posts and edits of growing replies: done, limited (HTTP 429), failed or refused",
    ["platform", "result"],
)
_FIRST_TEXT = Histogram(
    "parley_reply_first_text_seconds",
    "From the beginning of an attempt at a reply to its first text on the screen",
    ["platform"],
    buckets=_SECONDS,
)
_TOKEN_DELAY = Histogram(
    "parley_reply_token_delay_seconds",
    "Mean over a reply's tokens: from the model's delta to the write that showed it",
    ["platform"],
    buckets=_SECONDS,
)
_FINAL_DELAY = Histogram(
    "parley_reply_final_delay_seconds",
    "From the end of the model's answer to the final write",
    ["platform"],
    buckets=_SECONDS,
)


@dataclass(slots=True)
class Freshness:
    """The figures of one attempt at a reply; times are in seconds of one clock, 0 if unset."""

    platform: str
    began_at: float
    writes: int = 0
    limited: int = 0  # writes that the platform refused with HTTP 429
    first_text_at: float = 0.0
    text_ended_at: float = 0.0
    # Deltas that no write has shown, by their number and the sum of their times.
    _unseen: int = 0
    _unseen_times: float = 0.0
    _seen: int = 0
    _delays: float = 0.0  # of all deltas that were seen, in sum

    def add_delta(self, now: float) -> None:
        """Record a delta of the model."""
        self._unseen += 1
        self._unseen_times += now

    def pending(self) -> tuple[int, float]:
        """Return the deltas that a write begun now will show, for `record_write`."""
        return self._unseen, self._unseen_times

    def record_write(self, pending: tuple[int, float], now: float) -> None:
        """Record a confirmed write."""
        self.writes += 1
        _WRITES.labels(self.platform, "done").inc()
        number, times = pending
        self._unseen -= number
        self._unseen_times -= times
        self._seen += number
        self._delays += number * now - times
        if number and not self.first_text_at:
            self.first_text_at = now
            _FIRST_TEXT.labels(self.platform).observe(now - self.began_at)

    def record_failure(self, error: SurfaceError) -> None:
        """Record an unsuccessful write."""
        result = "failed" if isinstance(error, WriteFailed) else "refused"
        if isinstance(error, WriteDelayed):
            self.limited, result = self.limited + 1, "limited"
        _WRITES.labels(self.platform, result).inc()

    def end(self, now: float) -> None:
        """Record that the whole text is on the screen."""
        if self._seen:
            _TOKEN_DELAY.labels(self.platform).observe(self._delays / self._seen)
            _FINAL_DELAY.labels(self.platform).observe(now - self.text_ended_at)
