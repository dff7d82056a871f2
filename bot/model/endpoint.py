"""The interface of one model on one server, without retries."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from bot.domain import Message, Preferences

NOTHING_CHOSEN = Preferences()


@dataclass(slots=True)
class Answer:
    """An answer that has begun; read `deltas` to their end, which may raise ModelError."""

    first: str  # text with a visible character
    deltas: AsyncGenerator[str, None]
    left_out: int = 0  # characters of the last message of the prompt
    dropped: int = 0  # exchanges
    estimated: int | None = None  # tokens of the prompt, if they were counted
    # Set at the end if the server reports its count.
    prompt_tokens: int | None = None
    answer_tokens: int = 0


class Endpoint(Protocol):
    """One model on one server."""

    name: str  # as the operator knows it

    def stream(
        self,
        prompt: Sequence[Message],
        *,
        deadline: float,
        preferences: Preferences = NOTHING_CHOSEN,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a prompt and wait for the first delta; leaving the block closes the connection.

        Only temperature and answer length of the `preferences` apply.
        Raises ModelError, and ModelSilent at `deadline`, in loop time.
        """
        ...
