"""The models' metrics for Prometheus."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from prometheus_client import Counter, Histogram

from bot.domain import Json
from bot.errors import AnswerCut, ModelError
from bot.tokens.estimate import is_count

# As the servers report them; there are none for an answer that was stopped or broke off.
_TOKENS = Counter(
    "parley_model_tokens_total",
    "Tokens that the model read (in) and wrote (out), as its server counted them",
    ["model", "direction"],
)
_FIRST = Histogram(
    "parley_model_first_token_seconds",
    "From the request to the first text",
    ["model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)
_SPEED = Histogram(
    "parley_model_tokens_per_second",
    "Tokens of an answer over the time from its first to its last text, as its server counted them",
    ["model"],
    buckets=(1, 2, 5, 10, 20, 30, 50, 75, 100, 200, 500, 1000),
)
_FAILED = Counter(
    "parley_model_failures_total", "Requests that failed, by the error", ["model", "kind"]
)


class RequestMetrics:
    """The metrics of one request, recorded when its block ends.

    A request that is cancelled (a person pressed Stop) is no failure.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._sent_at = self._first_at = self._last_at = 0.0
        self.prompt_tokens: int | None = None  # None: the server has not reported it
        self._answer_tokens = 0

    def __enter__(self) -> Self:
        self._sent_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, ModelError) and not isinstance(error, AnswerCut):
            _FAILED.labels(self._model, type(error).__name__).inc()
        if self.prompt_tokens is None:
            return
        _TOKENS.labels(self._model, "in").inc(self.prompt_tokens)
        _TOKENS.labels(self._model, "out").inc(self._answer_tokens)
        seconds = self._last_at - self._first_at
        # The time begins with the first token.
        if self._answer_tokens > 1 and seconds > 0:
            _SPEED.labels(self._model).observe((self._answer_tokens - 1) / seconds)

    def add_text(self) -> None:
        """Record that text came."""
        self._last_at = time.monotonic()
        if not self._first_at:
            self._first_at = self._last_at
            _FIRST.labels(self._model).observe(self._first_at - self._sent_at)

    def add_usage(self, usage: Json) -> None:
        """Record reported token counts; if they come with every event, the last are right."""
        if isinstance(usage, dict) and is_count(read := usage.get("prompt_tokens")):
            written = usage.get("completion_tokens")
            self.prompt_tokens, self._answer_tokens = read, written if is_count(written) else 0
