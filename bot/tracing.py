"""Spans of a turn's way: what took how long; nothing is recorded unless a recorder is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

Fact = str | int | float
# The trace of the turn that this task, or the task that started it, handles, as the header
# `traceparent` (W3C, "Trace Context") has it; "" if it has none.
trace_in_work: ContextVar[str] = ContextVar("trace_in_work", default="")


class Span:
    """A part of a turn's way, until the end of its block. This one records nothing.

    `traceparent` continues its trace, also in another process. Facts have no word of people.
    """

    traceparent = ""

    def note(self, **facts: Fact) -> None:
        """Add facts."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, as failed if there is an error, of which only the kind is recorded."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.end(error)


# Called with a name, the traceparent above it, for how many seconds it has gone on, and facts.
Recorder = Callable[[str, str, float, Mapping[str, Fact]], Span]
_NOTHING = Span()


def _record_nothing(*_: object) -> Span:
    return _NOTHING


_record: Recorder = _record_nothing


def span(name: str, *, began_before: float = 0.0, **facts: Fact) -> Span:
    """Begin a span of the turn in work, or so many seconds ago; without one, a new trace."""
    return _record(name, trace_in_work.get(), began_before, facts)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Hand all spans of the process to a recorder until the end of the block."""
    global _record
    before, _record = _record, recorder
    try:
        yield
    finally:
        _record = before
