"""A person who asks something for which the bot needs a tool, in a window of any platform."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.support.process import DiscordMention, InDiscord, InSlack, SlackMention, Way
from tests.support.rooms import Platform, served
from tests.support.service import Service
from tests.support.waiting import until

THREADS = pytest.mark.parametrize(
    "window", [DiscordMention, SlackMention], ids=["Discord", "Slack"]
)

LABELS = ("Allow", "Allow always", "Deny")


class Asker:
    """Asks in a window, and answers when the bot asks back; `service` is the bot that runs now."""

    def __init__(
        self, platform: Platform, window: type[Way], model: ModelEmulator, service: Service
    ) -> None:
        self.platform, self.model, self.service = platform, model, service
        self.way = window(platform)  # type: ignore[call-arg]
        self.seen = 0  # messages of the bot before the last question

    async def ask(self, text: str) -> None:
        # Nothing is there before the first question: its thread is not open yet.
        self.seen = len(self._shown()) if self.model.requests else 0
        await self.way.ask(text)

    def last(self) -> DiscordShown | SlackShown | None:
        """The bot's last message since the question."""
        return next(iter(self._shown()[self.seen :][-1:]), None)

    def text(self) -> str:
        last = self.last()
        return last.text if last else ""

    def shows_work(self, sign: str) -> bool:
        """Whether people see what is done now: in a message, or in Slack's status line."""
        way, seen = self.way, self.text()
        if isinstance(way, InSlack):
            seen += way.slack.shown_status(way.channel, way.question or "")
        return sign.casefold() in seen.casefold()

    def labels(self) -> tuple[str, ...]:
        last = self.last()
        return last.labels if last else ()

    async def until_asked(self) -> None:
        await until(lambda: self.labels() == LABELS, why=self.why)

    async def press(self, label: str, *, by: str = "") -> None:
        shown, way, person = self.last(), self.way, by or self.way.person
        assert shown
        button = shown.buttons[shown.labels.index(label)]
        if isinstance(way, InDiscord):
            await way.discord.click(shown.id, person, button)  # type: ignore[union-attr]
        else:
            await way.slack.click(way.channel, shown.ts, person, button)  # type: ignore[union-attr]

    async def answered(self) -> str:
        """Return the text of the answer when it has ended."""
        await until(lambda: any("Regenerate" in one for one in self.labels()), why=self.why)
        return self.text()

    def _shown(self) -> list[DiscordShown | SlackShown]:
        """What the bot has shown to everybody here."""
        return [one for one in self.way.shown() if not getattr(one, "ephemeral", False)]

    async def command(self, words: str, **options: str) -> str:
        """Use `/parley tools` in the channel; return what the asker alone is told."""
        way = self.way
        if isinstance(way, InDiscord):
            place = way.discord.channel_id
            options = {"change": words, **options}
            given = await way.discord.slash(place, way.person, "parley tools", **options)
            await until(lambda: (one := way.discord.original(given)) and one.text, why=self.why)
            told = way.discord.original(given)
            return told.text if told else ""
        before, words = len(way.slack.ephemerals), " ".join(["tools", words, *options.values()])
        await way.slack.slash(way.slack.channel_id, way.person, "/parley", words)
        await until(lambda: len(way.slack.ephemerals) > before, why=self.why)
        return way.slack.ephemerals[-1].text

    def value(self) -> str:
        """Return what the buttons carry: the ids of a call and its turn."""
        shown = self.last()
        assert shown
        if isinstance(self.platform, SlackEmulator):
            return self.platform.value(self.platform.channel_id, shown.ts, "allow")  # type: ignore[union-attr]
        return shown.buttons[0].partition("-")[2]

    def told(self, person: str) -> list[str]:
        """Return what this person alone was told."""
        if isinstance(self.platform, SlackEmulator):
            return [one.text for one in self.platform.ephemerals if one.user_id == person]
        return [one.text for one in self.way.shown() if getattr(one, "reader", None) == person]

    def why(self) -> str:
        return f"{self.last()}\n{self.service.text()}"


def platform_of(window: type[Way]) -> Platform:
    """Return an emulator that does not run yet."""
    return DiscordEmulator() if issubclass(window, InDiscord) else SlackEmulator()


@asynccontextmanager
async def asking(
    window: type[Way], store: Store, model: ModelEmulator, **variables: str
) -> AsyncIterator[Asker]:
    """Serve a platform; at the end nothing must have been logged as an error."""
    async with (
        platform_of(window) as platform,
        served(platform, store, model, variables=variables) as service,
    ):
        yield Asker(platform, window, model, service)


class Office(Protocol):
    """A server of tools for a bot."""

    def serving(self, folder: Path) -> AbstractAsyncContextManager[Mapping[str, str]]:
        """Serve it, and yield the variables that name it, with a file in the folder."""


@asynccontextmanager
async def at_office(
    window: type[Way],
    store: Store,
    model: ModelEmulator,
    folder: Path,
    office: Office,
    **variables: str,
) -> AsyncIterator[Asker]:
    """Serve a platform whose bot has the tools of an office."""
    model.calling = model.models
    async with (
        office.serving(folder) as found,
        asking(window, store, model, **found, **variables) as ann,
    ):
        yield ann
