"""A question in a channel of the Slack emulator, and an app that answers it by raw HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload


@dataclass
class Talk:
    """Ann has asked something in a channel; what the app says is said by raw HTTP."""

    slack: SlackEmulator
    session: aiohttp.ClientSession
    channel: str
    ann: str
    asked: str

    async def call(self, method: str, **args: object) -> Payload:
        """Call a method with JSON and return the whole answer."""
        headers = {"Authorization": f"Bearer {self.slack.bot_token}"}
        url = self.slack.api_url + method
        async with self.session.post(url, json=args, headers=headers) as response:
            answer: Payload = await response.json()
            return answer

    async def refused(self, method: str, **args: object) -> str:
        """Call a method and return the error."""
        return str((await self.call(method, **args)).get("error"))

    async def form(self, method: str, args: Mapping[str, str]) -> Payload:
        """Call a method with a form and return the whole answer."""
        data = {**args, "token": self.slack.bot_token}
        async with self.session.post(self.slack.api_url + method, data=data) as response:
            answer: Payload = await response.json()
            return answer

    @property
    def place(self) -> Payload:
        """What a stream needs in a channel."""
        return {
            "channel": self.channel,
            "thread_ts": self.asked,
            "recipient_user_id": self.ann,
            "recipient_team_id": self.slack.team_id,
        }

    async def start(self, **args: object) -> str:
        """Start a stream in Ann's thread and return its ts."""
        answer = await self.call("chat.startStream", **{**self.place, **args})
        assert answer["ok"], answer
        return str(answer["ts"])

    async def append(self, ts: str, words: str) -> Payload:
        return await self.call(
            "chat.appendStream", channel=self.channel, ts=ts, markdown_text=words
        )

    async def stop(self, ts: str, **args: object) -> Payload:
        return await self.call("chat.stopStream", channel=self.channel, ts=ts, **args)

    def read(self) -> str:
        """What stands under Ann's question."""
        return self.slack.screen(self.channel, self.asked)[-1].text


@asynccontextmanager
async def talk(slack: SlackEmulator | None = None) -> AsyncIterator[Talk]:
    async with slack or SlackEmulator() as running, aiohttp.ClientSession() as session:
        ann = running.user("Ann")
        asked = await running.say(running.channel_id, ann, "hello?")
        yield Talk(running, session, running.channel_id, ann, asked)


async def stream(client: AsyncWebClient, slack: SlackEmulator, ann: str, asked: str) -> str:
    started = await client.chat_startStream(
        channel=slack.channel_id,
        thread_ts=asked,
        recipient_user_id=ann,
        recipient_team_id=slack.team_id,
        markdown_text="One",
    )
    return str(started["ts"])
