"""Replies to test, what they save, and what is said in them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from bot.domain import Delta, EditBudget, Shown
from bot.errors import LeaseLost
from bot.ports import Surface
from bot.reply.draft import Draft
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import Callbacks, Reply, ReplyTiming
from bot.store import Store
from tests.support.waiting import until

WORDS = [f"word{number} " for number in range(40)]
TEXT = "".join(WORDS)
TIMING = ReplyTiming()


def answer_of(text: str) -> str:
    """Return a message without the line of its question, which begins the answer to a command."""
    # A constant of the adapter, whose import would import Discord's library.
    return text.partition("\n")[2] if text.startswith("> \u200b") else text


async def allow_retry(_: Exception) -> None:
    """Let a failing model be asked again."""


async def always_announce() -> bool:
    """Let each reply note that the beginning is left out."""
    return True


class Saved:
    """What the reply saved, last."""

    def __init__(self) -> None:
        self.last = Shown()
        self.texts: list[str] = []
        self.lost_after: float = math.inf  # writes

    async def __call__(self, shown: Shown) -> None:
        self.lost_after -= 1
        if self.lost_after < 0:
            raise LeaseLost("1")
        self.last = shown
        self.texts.append(shown.said)


def make_reply(
    store: Store,
    surface: Surface,
    *,
    message_ids: Sequence[str] = (),
    older: str = "",
    replaced: str = "",
    earlier: Shown | None = None,
    stop: asyncio.Event | None = None,
    saved: Callable[[Shown], Awaitable[None]] | None = None,
    patience: float = 5.0,
    budgets: EditBudgets | None = None,
    timing: ReplyTiming = TIMING,
    before_retry: Callable[[Exception], Awaitable[None]] = allow_retry,
) -> Reply:
    return Reply(
        turn_id="console:1",
        surface=surface,
        budgets=budgets or EditBudgets(store=store),
        draft=Draft(
            limit=surface.limit,
            measure=surface.measure,
            shows_whole=surface.shows_whole,
            earlier=earlier or Shown(tuple(message_ids), older, older),
            previous_answer=replaced,
        ),
        callbacks=Callbacks(saved or Saved(), before_retry, always_announce),
        stop=stop or asyncio.Event(),
        timing=replace(timing, patience=patience),
    )


async def spoken(*parts: Delta | float | Callable[[], object] | Exception) -> AsyncGenerator[Delta]:
    """Yield deltas, with seconds of silence between, or silence until a condition holds."""
    for part in parts:
        if isinstance(part, Exception):
            raise part
        if isinstance(part, float | int):
            await asyncio.sleep(part)
        elif callable(part):
            await until(part)
        else:
            yield part


async def answer(
    store: Store,
    surface: Surface,
    *parts: Delta | float | Callable[[], object] | Exception,
    **options: Any,
) -> Shown:
    """Stream what `spoken` yields as a reply; the options are those of `make_reply`."""
    return await make_reply(store, surface, **options).stream(spoken(*parts))


class Watched(EditBudgets):
    """Edit budgets that tell what they granted; others may add what they did with it."""

    def __init__(self, *, store: Store) -> None:
        super().__init__(store=store)
        self.events: list[str] = []
        self.sinces: list[float] = []

    async def interim(
        self, budget: EditBudget, *, new: bool, since: float, wrote: float, unless: asyncio.Event
    ) -> bool:
        self.sinces.append(since)
        granted = await super().interim(budget, new=new, since=since, wrote=wrote, unless=unless)
        if granted:
            self.events.append(f"{budget.bucket} granted")
        return granted

    async def final(self, budget: EditBudget | None, *, deadline: float) -> None:
        await super().final(budget, deadline=deadline)
        if budget:
            self.events.append(f"{budget.bucket} granted")
