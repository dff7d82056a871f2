"""What a model thinks: bounded, and told by the sign of life."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import pytest

from bot.domain import Delta, EditBudget, Retrying, StepNote, StepNotes, Thought
from bot.errors import ModelBusy
from bot.reply.draft import BUSY, THINKING, WAITING
from bot.reply.thoughts import Thoughts
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.support.fakes import FakeSurface
from tests.support.replies import make_reply
from tests.support.waiting import until

OWN = EditBudget("own", 1000, 1.0, own=True)
LATE = ReplyTiming(first_silence=3600.0, silence=3600.0)


async def test_the_end_of_a_long_thought_stays_without_controls() -> None:
    thoughts = Thoughts()

    thoughts("x" * 100_000)
    thoughts("\n\x1b[2JThe \u202eend.")

    text = thoughts.value.text
    assert text.endswith("x\n[2JThe end.")
    assert len(text) == 64_000


async def test_a_failed_request_loses_its_thoughts_and_a_round_that_has_ended_keeps_them() -> None:
    thoughts = Thoughts()

    for piece in (None, "One.", None, "Two."):
        thoughts(piece)
    thoughts.keep()
    for piece in (None, "Three.", None, "Four."):
        thoughts(piece)

    assert thoughts.value == Thought("Two.\n\nFour.", 1)
    thoughts(None)
    assert thoughts.value == Thought("Two.", 1)


@dataclass
class Free(FakeSurface):
    """A surface whose writes cost nobody a slot, and on which people read thoughts."""

    shows_thoughts: bool = True
    edits: EditBudget = field(default_factory=lambda: OWN)
    posts: EditBudget = field(default_factory=lambda: OWN)


async def thinking(
    thoughts: Thoughts, *parts: Delta | Callable[[], object]
) -> AsyncGenerator[Delta]:
    """Yield deltas; call what is no delta, and wait until it is true."""
    for part in parts:
        if callable(part):
            await until(part)
        else:
            yield part


async def test_where_writes_are_free_thinking_is_shown_at_once(store: Store) -> None:
    surface = Free()
    reply = make_reply(store, surface, timing=LATE)
    thoughts = reply._draft.thoughts

    def think() -> bool:
        thoughts("Hm.")
        return surface.text == THINKING

    shown = await reply.stream(thinking(thoughts, think, "42"))

    assert surface.states == [THINKING, "42"]
    assert (shown.said, shown.text) == ("42", "42")


@pytest.mark.parametrize("before", [None, Retrying(ModelBusy("busy"))])
async def test_elsewhere_the_sign_of_a_silence_says_that_the_model_thinks(
    store: Store, before: Delta | None
) -> None:
    surface = FakeSurface()
    timing = ReplyTiming(first_silence=0.02, busy_silence=0.02)
    reply = make_reply(store, surface, timing=timing)
    thoughts = reply._draft.thoughts
    sign = BUSY if before else WAITING

    def think() -> bool:
        thoughts("Hm.")
        return surface.text == THINKING

    parts = [*([before] if before else []), lambda: surface.text == sign, think, "42"]
    await reply.stream(thinking(thoughts, *parts))

    assert surface.states == [sign, THINKING, "42"]


async def test_a_model_that_thinks_again_after_a_call_says_so_below_its_words(
    store: Store,
) -> None:
    surface = Free()
    reply = make_reply(store, surface, timing=LATE)
    thoughts = reply._draft.thoughts
    done = StepNotes((StepNote("c1", "Searching the web", "done"),))

    def think() -> bool:
        thoughts("Hm.")
        return surface.text == f"I look.\n\n{THINKING}"

    await reply.stream(thinking(thoughts, "I look.", done, think, " It is 42."))

    assert surface.text.startswith("I look. It is 42.")
    assert THINKING not in surface.text
