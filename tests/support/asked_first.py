"""A person who asks something for which the bot needs a tool, in a window of any platform."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import Shown as SlackShown
from tests.support.process import InDiscord, InSlack, Way
from tests.support.service import Service
from tests.support.waiting import until

LABELS = ("Allow", "Allow always", "Deny")


@dataclass
class Asker:
    """Asks in a `way`, and answers when the bot asks back; `service` is the bot that runs now."""

    way: Way
    model: ModelEmulator
    service: Service
    seen: int = 0  # messages of the bot before the last question

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
        """What the bot has shown to everybody here, or to the asker."""
        hidden = (None, self.way.person)
        return [one for one in self.way.shown() if getattr(one, "reader", None) in hidden]

    def why(self) -> str:
        return f"{self.last()}\n{self.service.text()}"
