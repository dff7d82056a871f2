"""A talk of one person with the bot, in the emulated Discord."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import Asked, ModelEmulator
from tests.support.service import Service
from tests.support.waiting import until


def describes(messages: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a prompt asks what a picture shows."""
    return "Describe this picture" in messages[-1]["content"]


class Talk:
    """Ann's DM with the bot; `ask` returns the prompt and the whole answer."""

    def __init__(self, discord: DiscordEmulator, model: ModelEmulator, service: Service) -> None:
        self.discord, self.model, self.service = discord, model, service
        self.ann = discord.user("Ann")
        self.place = discord.dm(self.ann)

    async def ask(self, text: str, **options: Any) -> tuple[list[str], str]:
        await self.discord.say(self.place, self.ann, text, **options)
        return await self.answered()

    async def answered(self) -> tuple[list[str], str]:
        wanted = len(self.asked()) + 1

        def is_over() -> bool:
            last = self.discord.screen(self.place)[-1:]
            labels = any("Regenerate" in label for one in last for label in one.labels)
            return len(self.asked()) >= wanted and labels

        await until(is_over, why=self.service.text)
        return self.prompt(), self.discord.screen(self.place)[-1].text

    def asked(self) -> list[Asked]:
        """Return the requests of questions."""
        return [one for one in self.model.requests if not describes(one.messages)]

    def described(self) -> list[Asked]:
        """Return the requests of descriptions."""
        return [one for one in self.model.requests if describes(one.messages)]

    def prompt(self) -> list[str]:
        return [str(one["content"]) for one in self.asked()[-1].messages]

    def downloads(self) -> Sequence[str]:
        return self.discord.cdn.fetched
