"""What goes wrong on purpose: with every emulator, and with a model's streams besides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Unpack, get_args

from tests.emulators import faults

How = faults.How | Literal["reset", "eof", "garbage", "error_event"]

_SHARED: tuple[faults.How, ...] = get_args(faults.How)
HOWS: tuple[How, ...] = (*_SHARED, "reset", "eof", "garbage", "error_event")
_WITHIN = ("eof", "garbage", "error_event")  # what happens to a body on its way


@dataclass(frozen=True, slots=True)
class Fault:
    """The shared fault, with what only a stream can do.

    With `at_delta` it happens after so many deltas of a stream, or at its end when it has fewer;
    "status" is then an error within the stream, for its headers are gone. "drop" is the plain end
    of the connection, as with the other emulators and as a process that is killed leaves it;
    "reset" is a TCP reset. "eof" ends the body in good order but too early; "garbage" sends `body`
    as a line of the stream, "error_event" as an error within it, the server's own when it is None.
    These last three open the stream when `at_delta` is None.
    """

    how: How
    at_delta: int | None
    shared: faults.Fault

    @property
    def at_once(self) -> bool:
        """Whether it happens before the headers."""
        return self.how not in _WITHIN and self.at_delta is None


@dataclass(slots=True)
class Faults:
    """The faults that wait for their calls, in the order in which they were asked for."""

    _shared: faults.Faults = field(default_factory=faults.Faults)
    _faults: list[Fault] = field(default_factory=list)

    def add(
        self, call: str, how: How, *, at_delta: int | None, **terms: Unpack[faults.Terms]
    ) -> faults.Fault:
        """Let the next `times` calls go wrong, after `after` good ones; see Fault."""
        # The shared faults count the calls; what is not of theirs they need not know.
        shared = self._shared.add(call, how if how in _SHARED else "drop", **terms)
        self._faults.append(Fault(how, at_delta, shared))
        return shared

    def strike(self, call: str) -> Fault | None:
        """Return what is wrong with the call that comes now, and count it; None: it goes well."""
        struck = self._shared.strike(call)
        return next((fault for fault in self._faults if fault.shared is struck), None)

    def in_vain(self) -> list[str]:
        """Return the calls of faults that never struck."""
        return self._shared.in_vain()

    def heal(self) -> None:
        """Let every call go well from now on."""
        self._shared.heal()
        self._faults.clear()
