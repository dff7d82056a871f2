"""The port of one model on one server, asked once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from bot.domain import Message, Preferences

NOTHING_CHOSEN = Preferences()


@dataclass(slots=True)
class Answer:
    """An answer that has begun; read `deltas` to their end, which may raise ModelError.

    `first` is text with a visible character. `left_out` counts the characters that the last message
    of the prompt lost, and `dropped` the exchanges that the prompt lost. `estimated` is about how
    many tokens the prompt has; None if nobody has counted. `prompt_tokens` and `answer_tokens` are
    set at the end if the server reports its count.
    """

    first: str
    deltas: AsyncGenerator[str, None]
    left_out: int = 0
    dropped: int = 0
    estimated: int | None = None
    prompt_tokens: int | None = None
    answer_tokens: int = 0


class Endpoint(Protocol):
    """One model on one server."""

    name: str  # the model's, as the operator knows it

    def stream(
        self,
        prompt: Sequence[Message],
        *,
        deadline: float,
        accepted: Callable[[], None],
        preferences: Preferences = NOTHING_CHOSEN,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a prompt and wait for the first delta; leaving the block hangs up.

        Of the `preferences`, the temperature and the longest answer hold.

        `accepted` is called when the server has accepted the prompt, which may be minutes before.
        Raises ModelError, and ModelSilent at `deadline`, in loop time.
        """
        ...
