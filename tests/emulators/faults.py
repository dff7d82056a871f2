"""What goes wrong on purpose, in the same words for every emulator."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

How = Literal["status", "drop", "hang", "late", "reset", "eof", "garbage", "error_event"]
# What happens to a body on its way.
_WITHIN = ("eof", "garbage", "error_event")


class Terms(TypedDict, total=False):
    """What one may say of a fault beside its call and its way; see Fault."""

    status: int
    body: object
    headers: Mapping[str, str] | None
    retry_after: float | None
    seconds: float
    applied: bool
    times: int
    after: int
    gate: asyncio.Event | None
    at_delta: int | None


@dataclass(slots=True)
class Fault:
    """How matching calls go wrong: `times` of them, after `after` of them went well.

    "status" answers `status` with `body` and `headers`, each of them the platform's own where it is
    None; "drop" closes the connection without an answer; "hang" never answers; "late" answers
    rightly, `seconds` later. `applied` does the work all the same. `retry_after` is what a 429
    asks the caller to wait, in seconds. Nothing is done before `gate` is set, if there is one.

    A model can do more. With `at_delta` it happens after so many deltas of a stream, or at its end
    when it has fewer; "status" is then an error within the stream, for its headers are gone.
    "reset" is a TCP reset. "eof" ends the body in good order but too early; "garbage" sends `body`
    as a line of the stream, "error_event" as an error within it, the server's own when it is None.
    These last three open the stream when `at_delta` is None.
    """

    call: re.Pattern[str]
    how: How
    status: int = 500
    body: object = None
    headers: Mapping[str, str] | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    applied: bool = False
    times: int = 1
    after: int = 0
    gate: asyncio.Event | None = None
    at_delta: int | None = None
    struck: bool = False

    async def opened(self) -> None:
        """Wait for the gate, if there is one."""
        if self.gate:
            await self.gate.wait()

    @property
    def at_once(self) -> bool:
        """Whether it happens before the headers."""
        return self.how not in _WITHIN and self.at_delta is None


@dataclass(slots=True)
class Faults:
    """The faults that wait for their calls, in the order in which they were asked for."""

    waiting: list[Fault] = field(default_factory=list)

    def add(self, call: str, how: How = "status", **terms: Unpack[Terms]) -> Fault:
        """Let the next `times` calls go wrong, after `after` good ones; see Fault.

        What is returned tells by its `times` how many of them are still to come.

        `call` is a regular expression to be found in what the emulator calls the call.
        """
        self.waiting.append(Fault(re.compile(call), how, **terms))
        return self.waiting[-1]

    def strike(self, call: str) -> Fault | None:
        """Return what is wrong with the call that comes now, and count it; None: it goes well."""
        waiting = [it for it in self.waiting if it.times > 0 and it.call.search(call)]
        for fault in waiting:
            if fault.after <= 0:
                fault.times -= 1
                fault.struck = True
                return fault
        for fault in waiting:
            fault.after -= 1
        return None

    def in_vain(self) -> list[str]:
        """Return the calls of faults that never struck: who asked for one tests nothing by it."""
        return [fault.call.pattern for fault in self.waiting if not fault.struck]

    def heal(self) -> None:
        """Let every call go well from now on."""
        self.waiting.clear()
