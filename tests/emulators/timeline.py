"""What a person saw and when: the same for every emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Moment:
    """Something changed on the screen; `at` is in real monotonic seconds.

    `message` is the message's id, and `text` what it shows from now on; a deleted one shows
    nothing. "sign" is typing, or a status with its text, and belongs to no message.
    """

    at: float
    what: Literal["post", "edit", "delete", "sign"]
    message: str
    text: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that a model sent; `at` is in real monotonic seconds."""

    at: float
    text: str
