"""Slack's own libraries, and raw HTTP, against the Slack emulator."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from tests.emulators.clock import Clock
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload

TRANSPORTS = pytest.mark.parametrize("transport", ["socket", "http"])
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


@dataclass
class SlackBot:
    """A bolt app that keeps what it hears; with `deaf` it refuses every event."""

    app: AsyncApp
    heard: list[Payload] = field(default_factory=list)
    deaf: bool = False

    def all_events(self) -> list[Payload]:
        bodies = [body.get("event") for body in self.heard]
        return [event for event in bodies if isinstance(event, dict)]

    def events(self, kind: str) -> list[Payload]:
        """In the order in which they happened: bolt hears each in a task of its own."""
        events = [event for event in self.all_events() if event["type"] == kind]
        return sorted(events, key=lambda event: str(event.get("event_ts", "")))


@asynccontextmanager
async def bolt(slack: SlackEmulator, transport: str = "socket") -> AsyncIterator[SlackBot]:
    """Run an unmodified bolt app against the emulator."""
    client = AsyncWebClient(slack.bot_token, base_url=slack.api_url)
    app = AsyncApp(
        client=client,
        signing_secret=slack.signing_secret,
        process_before_response=True,
        ignoring_self_events_enabled=False,
    )
    bot = SlackBot(app)

    @app.event(re.compile(".*"))
    async def hear(body: Payload) -> None:
        bot.heard.append(body)
        if bot.deaf:
            raise ConnectionError

    async with AsyncExitStack() as stack:
        if transport == "socket":
            handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=0.1)
            await handler.connect_async()  # type: ignore[no-untyped-call]
            stack.push_async_callback(handler.close_async)
            await asyncio.wait_for(slack.connected.wait(), 30)
        else:
            await slack.verify(await served(app.web_app(), stack) + "slack/events")
        yield bot


class Endpoint:
    """An app's Request URL without any library; it returns challenges and keeps what it is told.

    `status` and `headers` are what it answers otherwise, after `seconds`.
    """

    def __init__(self) -> None:
        self.status, self.seconds = 200, 0.0
        self.headers: dict[str, str] = {}
        self.told: list[tuple[Mapping[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if b"url_verification" in body:
            return web.json_response({"challenge": json.loads(body)["challenge"]})
        self.told.append((request.headers, body))
        await asyncio.sleep(self.seconds)
        return web.Response(status=self.status, headers=self.headers)


@asynccontextmanager
async def endpoint(slack: SlackEmulator) -> AsyncIterator[Endpoint]:
    """Let the emulator deliver by HTTP to an app without any library."""
    app, told = web.Application(), Endpoint()
    app.router.add_post("/", told.answer)
    async with AsyncExitStack() as stack:
        await slack.verify(await served(app, stack))
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


async def served(app: web.Application, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/"


@asynccontextmanager
async def writer(slack: SlackEmulator, token: str | None = None) -> AsyncIterator[AsyncWebClient]:
    """Open slack-sdk's client on one session, with the first workspace's token or another."""
    async with aiohttp.ClientSession() as session:
        yield AsyncWebClient(token or slack.bot_token, base_url=slack.api_url, session=session)


async def post(
    client: AsyncWebClient,
    channel: str,
    text: str,
    *,
    blocks: list[Payload] | None = None,
    thread_ts: str | None = None,
) -> str:
    """Post without previews and return the message's ts."""
    posted = await client.chat_postMessage(
        channel=channel,
        text=text,
        blocks=blocks,
        thread_ts=thread_ts,
        unfurl_links=False,
        unfurl_media=False,
    )
    return str(posted["ts"])


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


async def stream(client: AsyncWebClient, slack: SlackEmulator, ann: str, asked: str) -> str:
    started = await client.chat_startStream(
        channel=slack.channel_id,
        thread_ts=asked,
        recipient_user_id=ann,
        recipient_team_id=slack.team_id,
        **said("One"),  # type: ignore[arg-type]
    )
    return str(started["ts"])
