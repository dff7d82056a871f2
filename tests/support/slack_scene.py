"""A question in a thread of Slack, and the streams that answer it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.slack.limits import Limits
from adapters.slack.platform import SlackPlatform
from bot.domain import Delta, Page, Person, Purpose, ThreadKey, Turn
from bot.domain import Shown as Left
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.emulators.slack import Shown, SlackEmulator
from tests.support.fakes import FakeModel
from tests.support.replies import TIMING, make_reply
from tests.support.slack_platform import LIMITS, UNLIMITED, joined
from tests.support.waiting import until

WORDS = [f"word{number} " for number in range(30)]


TEXT = "".join(WORDS)


LONG = "".join(f"word{number:04} " for number in range(600))  # two pages


@dataclass
class Scene:
    """A question in a thread of an emulated Slack, and the bot."""

    slack: SlackEmulator
    platform: SlackPlatform
    turn: Turn
    saved: list[Sequence[str]] = field(default_factory=list)
    shown: str = ""

    def replies(self) -> list[Shown]:
        return self.slack.screen(self.slack.channel_id, str(self.turn.place["thread"]))[1:]

    def texts(self) -> list[str]:
        return [shown.text for shown in self.replies()]

    def calls(self, method: str) -> int:
        return sum(call.method == method for call in self.slack.requests)

    def writes(self) -> int:
        """Return how often Slack was asked to write a part of a reply."""
        methods = "chat.startStream", "chat.appendStream", "chat.postMessage", "chat.update"
        return sum(call.method in methods for call in self.slack.requests)

    async def save(self, shown: Left) -> None:
        self.saved.append(list(shown.message_ids))
        self.shown = shown.text

    def session(self) -> list[str]:
        return self.slack.session(self.slack.channel_id, str(self.turn.place["thread"]))

    def status(self) -> str:
        return self.slack.shown_status(self.slack.channel_id, str(self.turn.place["thread"]))

    async def asks_on(self) -> Turn:
        """Another turn in the thread."""
        thread = str(self.turn.place["thread"])
        ts = await self.slack.say(
            self.slack.channel_id, self.turn.person.id, "and?", thread_ts=thread
        )
        place = {**self.turn.place, "question": ts}
        id_ = f"slack:{self.slack.team_id}:{self.slack.channel_id}:{ts}"
        return replace(self.turn, id=id_, place=place)

    async def delete_orphans(self, left: Left) -> None:
        """Delete messages of other attempts, as the repair of a turn does."""
        orphans = await self.platform.orphaned_messages(self.turn, but=left.message_ids)
        async with self.platform.surface(self.turn, Purpose.RESUME) as surface:
            for orphan in orphans:
                await surface.edit(orphan, Page(0, "", final=True))

    async def stop(self) -> None:
        """Let the person press Slack's own Stop."""
        thread = str(self.turn.place["thread"])
        await self.slack.stop(self.slack.channel_id, thread, self.turn.person.id)

    async def answer(
        self, store: Store, deltas: Sequence[str], *, pause: float = 0.01, **options: Any
    ) -> None:
        """Answer with deltas so many seconds apart; the options are those of `stream`."""
        await self.stream(store, FakeModel(deltas, pause=pause).stream([]), **options)

    async def grow(self, store: Store, deltas: Sequence[str]) -> None:
        """Answer with deltas of which each of the first two is written alone."""

        async def said() -> AsyncGenerator[Delta]:
            first, second, *others = deltas
            yield first
            await until(self.writes)
            before = self.writes()
            yield second
            await until(lambda: self.writes() > before)
            for delta in others:
                yield delta

        await self.stream(store, said())

    async def stream(
        self,
        store: Store,
        deltas: AsyncGenerator[Delta],
        message_ids: Sequence[str] = (),
        older: str = "",
        *,
        patience: float = 5.0,
        purpose: Purpose = Purpose.ANSWER,
        timing: ReplyTiming = TIMING,
    ) -> None:
        async with self.platform.surface(self.turn, purpose) as surface:
            reply = make_reply(
                store,
                surface,
                message_ids=message_ids,
                older=older,
                saved=self.save,
                patience=patience,
                timing=timing,
            )
            await reply.stream(deltas)


@asynccontextmanager
async def make_scene(
    budgets: EditBudgets | None = None, *, limits: Limits = LIMITS
) -> AsyncIterator[Scene]:
    quick = dict.fromkeys(
        ("chat.startStream", "chat.appendStream", "chat.stopStream", "chat.update"), UNLIMITED
    )
    async with SlackEmulator(rates=quick | {"chat.postMessage": UNLIMITED}) as slack:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "why?")
        turn = Turn(
            id=f"slack:{slack.team_id}:{slack.channel_id}:{ts}",
            key=ThreadKey("slack", slack.team_id, slack.channel_id, ts),
            person=Person(ann, "Ann"),
            text="why?",
            place={"channel": slack.channel_id, "thread": ts, "question": ts},
            asked_at=time.time(),
        )
        async with joined(slack, budgets=budgets, limits=limits) as platform:
            yield Scene(slack, platform, turn)


def growing(said: str) -> Page:
    return Page(0, said, final=False, said=said)
