"""Slack's own client, and raw HTTP, against the Slack emulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from tests.emulators.clock import Clock
from tests.emulators.serving import served
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload

EVERY_SCOPE = frozenset(scope for method in METHODS.values() for scope in method.scopes)
QUIET: Payload = {"unfurl_links": False, "unfurl_media": False}
STOP: Payload = {
    "type": "actions",
    "elements": [
        {"type": "button", "action_id": "stop", "text": {"type": "plain_text", "text": "Stop"}}
    ],
}


class StillClock(Clock):
    """A clock that stands until it is put forward, so that rates can be counted exactly."""

    def now(self) -> float:
        return self._ahead


class Endpoint:
    """An app's Request URL without any library: `told` is what it is told, with the headers.

    It returns challenges; to all else it answers with `status` and `reply`, after `seconds`.
    """

    def __init__(self) -> None:
        self.status, self.seconds = 200, 0.0
        self.reply: Payload = {}
        self.told: list[tuple[Mapping[str, str], Payload]] = []

    @property
    def last(self) -> Payload:
        return self.told[-1][1]

    def events(self, *kinds: str) -> list[Payload]:
        """The events, of these kinds alone if any are named, in the order of what they tell of."""
        bodies = [body.get("event") for _, body in self.told]
        events = [one for one in bodies if isinstance(one, dict)]
        found = [one for one in events if not kinds or one["type"] in kinds]
        return sorted(found, key=lambda one: str(one.get("event_ts", "")))

    async def answer(self, request: web.Request) -> web.Response:
        body = _read(await request.text())
        if "challenge" in body:
            return web.json_response({"challenge": body["challenge"]})
        self.told.append((request.headers, body))
        await asyncio.sleep(self.seconds)
        return web.Response(status=self.status, text=json.dumps(self.reply) if self.reply else "")


def _read(body: str) -> Payload:
    fields: Payload = json.loads(body) if body.startswith("{") else dict(parse_qsl(body))
    payload = fields.get("payload")
    return json.loads(payload) if isinstance(payload, str) else fields


@asynccontextmanager
async def endpoint(slack: SlackEmulator) -> AsyncIterator[Endpoint]:
    """Let the emulator deliver by HTTP to an app without any library."""
    app, told = web.Application(), Endpoint()
    app.router.add_post("/", told.answer)
    async with served(app) as url:
        await slack.verify(url)
        yield told


@asynccontextmanager
async def socket(slack: SlackEmulator) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a connection without any library; its hello is read already."""
    headers = {"Authorization": f"Bearer {slack.app_token}"}
    async with aiohttp.ClientSession() as session:
        url = f"{slack.api_url}apps.connections.open"
        async with session.post(url, headers=headers) as response:
            address = (await response.json())["url"]
        async with session.ws_connect(address) as connection:
            assert (await connection.receive_json())["type"] == "hello"
            yield connection


@asynccontextmanager
async def writer(slack: SlackEmulator, token: str | None = None) -> AsyncIterator[AsyncWebClient]:
    """Open slack-sdk's client on one session, with the first workspace's token or another."""
    async with aiohttp.ClientSession() as session:
        yield AsyncWebClient(token or slack.bot_token, base_url=slack.api_url, session=session)


async def post(client: AsyncWebClient, channel: str, text: str, **more: Any) -> str:
    """Post without previews and return the message's ts."""
    said = {"channel": channel, "text": text, **QUIET, **more}
    return str((await client.chat_postMessage(**said))["ts"])


async def refused(
    client: AsyncWebClient, method: str, args: Mapping[str, object]
) -> AsyncSlackResponse:
    """Call a method as it takes its arguments and return how Slack refuses."""
    form = METHODS[method].form_only if method in METHODS else False
    how = {"params" if form else "json": dict(args)}
    with pytest.raises(SlackApiError) as caught:
        await client.api_call(method, **how)  # type: ignore[arg-type]
    response = caught.value.response
    assert isinstance(response, AsyncSlackResponse)
    return response


async def refusal(client: AsyncWebClient, method: str, args: Mapping[str, object]) -> str:
    """Call a method and return the error that Slack names."""
    return str((await refused(client, method, args))["error"])


def markdown(text: str) -> list[Payload]:
    return [{"type": "markdown", "text": text}]


def section(text: str) -> list[Payload]:
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]


def said(words: str) -> Payload:
    """Return a text as a stream takes it."""
    return {"chunks": [{"type": "markdown_text", "text": words}]} if words else {}


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

    @property
    def place(self) -> Payload:
        """What a stream needs in a channel."""
        return {
            "channel": self.channel,
            "thread_ts": self.asked,
            "recipient_user_id": self.ann,
            "recipient_team_id": self.slack.team_id,
        }

    async def start(self, words: str = "", /, **args: Any) -> str:
        """Start a stream in Ann's thread and return its ts."""
        answer = await self.call("chat.startStream", **self.place, **said(words), **args)
        assert answer["ok"], answer
        return str(answer["ts"])

    async def append(self, ts: str, words: str) -> Payload:
        return await self.call("chat.appendStream", channel=self.channel, ts=ts, **said(words))

    async def stop(self, ts: str, words: str = "", **args: object) -> Payload:
        place = {"channel": self.channel, "ts": ts}
        return await self.call("chat.stopStream", **place, **said(words), **args)

    def read(self) -> str:
        """What stands under Ann's question."""
        return self.slack.screen(self.channel, self.asked)[-1].text


@asynccontextmanager
async def talk(slack: SlackEmulator | None = None) -> AsyncIterator[Talk]:
    async with slack or SlackEmulator() as running, aiohttp.ClientSession() as session:
        ann = running.user("Ann")
        asked = await running.say(running.channel_id, ann, "hello?")
        yield Talk(running, session, running.channel_id, ann, asked)
