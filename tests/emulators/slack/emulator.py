"""An emulator of Slack: the Web API, Socket Mode and signed HTTP for one app in one workspace."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from types import TracebackType

from aiohttp import web

from tests.emulators.slack.chat import Chat
from tests.emulators.slack.delivery import Delivery, Envelope, Outbox
from tests.emulators.slack.events import EVENTS, Events
from tests.emulators.slack.socket import SocketMode
from tests.emulators.slack.web import Failure, Rate, WebApi
from tests.emulators.slack.workspace import (
    APP_ID,
    BOT_ID,
    BOT_USER_ID,
    TEAM_ID,
    Payload,
    Post,
    Shown,
    Workspace,
    buttons,
    escape,
)

# docs: Rate limits: chat.update is of tier 3, "50+ per minute" per workspace and app;
# chat.postMessage takes "about one per second" per channel, "short bursts" allowed.
UPDATES = Rate(calls=50, seconds=60.0, burst=50)
POSTS = Rate(calls=1, seconds=1.0, burst=5)


class SlackEmulator:
    """Slack on 127.0.0.1: the Web API and Socket Mode on one port, as an async context manager.

    Leaving it raises AssertionError when the bot called a method that is not emulated, or used one
    against Slack's description. `latency` is seconds per call, half of it before the work is done;
    `retry_after` has the pauses before the retries of an event, in Slack's reality 0, 60 and 300.
    `subscribed` has the app's event subscriptions. Times in records are monotonic seconds.
    """

    team_id = TEAM_ID
    app_id = APP_ID
    bot_id = BOT_ID
    bot_user_id = BOT_USER_ID
    bot_mention = f"<@{BOT_USER_ID}>"

    def __init__(
        self,
        *,
        latency: float = 0.0,
        retry_after: tuple[float, ...] = (0.2, 0.6, 1.0),
        ack_within: float = 3.0,
        subscribed: Collection[str] = EVENTS,
        updates: Rate = UPDATES,
        posts: Rate = POSTS,
    ) -> None:
        self.bot_token = f"xoxb-{secrets.token_hex(12)}"
        self.app_token = f"xapp-1-{secrets.token_hex(12)}"
        self.signing_secret = secrets.token_hex(16)
        self._workspace = Workspace()
        self._socket = SocketMode()
        self._outbox = Outbox(
            self._socket,
            secret=self.signing_secret,
            retry_after=retry_after,
            ack_within=ack_within,
        )
        self._events = Events(self._workspace, self._outbox, subscribed)
        self.violations: list[str] = []
        self._chat = Chat(self._workspace, self._events, self.violations)
        self._web = WebApi(
            self._workspace,
            self._chat,
            self._socket,
            tokens={self.bot_token: "bot", self.app_token: "app"},
            rates={"chat.update": updates, "chat.postMessage": posts},
            latency=latency,
            violations=self.violations,
        )
        self._runner: web.AppRunner | None = None
        self.api_url = ""
        self.channel_id = self.channel("general")
        self.connected = self._socket.connected
        self.deliveries = self._outbox.deliveries
        self.requests = self._web.requests
        self.unknown = self._web.unknown
        self.ephemerals = self._chat.ephemerals
        self.pings = self._chat.pings
        self.unfurls = self._chat.unfurls

    async def __aenter__(self) -> SlackEmulator:
        app = web.Application(client_max_size=4 * 1024**2)
        app.router.add_route("*", "/api/{method}", self._web.serve)
        app.router.add_post("/actions/{team}/{key}", self._web.serve_response)
        app.router.add_get("/link/", self._socket.serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._web.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        self.api_url = f"{self._web.url}api/"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._web.closing.set()
        await self._socket.close()
        if self._runner:
            await self._runner.cleanup()
        # Last, for each call that was still answered may have put something into it.
        await self._outbox.close()
        if kind is None:
            assert not self.unknown, f"methods that are not emulated: {self.unknown}"
            assert not self.violations, f"against Slack's rules: {self.violations}"

    def user(self, name: str) -> str:
        """Let a person join the workspace and return the user id."""
        return self._workspace.user(name)

    def channel(self, name: str, *, member: bool = True) -> str:
        """Open a public channel and return its id."""
        return self._workspace.channel(name, member=member)

    def dm(self, user_id: str) -> str:
        """Return the id of the bot's DM with a person."""
        return self._workspace.dm(user_id).id

    def deliver_to(self, url: str) -> None:
        """From now on tell the app by signed HTTP requests to this address."""
        self._outbox.url = url

    async def say(
        self,
        channel_id: str,
        user_id: str,
        text: str,
        *,
        thread_ts: str | None = None,
        files: tuple[str, ...] = (),
    ) -> str:
        """Let a person write and return the message's ts; the app is told in the background.

        `text` is as typed, with mentions as `<@U…>`; the app gets it escaped. `files` are the
        names of what is uploaded with it.
        """
        if thread_ts is not None:
            self._post(channel_id, thread_ts)
        wire = escape(text)
        ts = self._workspace.timestamp()
        post = Post(ts, channel_id, user_id, wire, [], thread_ts, typed=text, files=files)
        self._events.posted(self._workspace.add(post))
        return ts

    async def redeliver(self, ts: str) -> None:
        """Tell again of all that concerned a message, as a retry, and wait for the answer."""
        await self._outbox.repeat(ts)

    async def slash(self, channel_id: str, user_id: str, command: str, text: str) -> Delivery:
        """Use a slash command and wait for its answer; Slack tries it only once."""
        channel = self._workspace.channels[channel_id]
        payload: Payload = {
            "token": "an-old-verification-token",
            "team_id": TEAM_ID,
            "team_domain": "parley",
            "channel_id": channel_id,
            "channel_name": channel.name,
            "user_id": user_id,
            "user_name": self._workspace.users[user_id].lower(),
            "command": command,
            "text": escape(text),
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self._web.url + self._chat.response_url(channel_id, user_id),
            "trigger_id": _trigger_id(),
        }
        delivery = await self._outbox.tell(Envelope("slash_commands", "slash_commands", payload))
        if answer := _answer(delivery):
            self._chat.answer(channel_id, user_id, answer)
        return delivery

    async def click(self, channel_id: str, ts: str, user_id: str, action_id: str) -> Delivery:
        """Press a button and wait for the answer; LookupError when nobody can see that button."""
        post = self._post(channel_id, ts)
        found = {name: (block_id, button) for name, block_id, button in buttons(post.blocks)}
        block_id, button = found[action_id]
        action = {**button, "block_id": block_id, "action_ts": self._workspace.timestamp()}
        payload = {
            **self._interaction(post, user_id),
            "type": "block_actions",
            "actions": [action],
            "response_url": self._web.url + self._chat.response_url(channel_id, user_id, ts),
        }
        return await self._outbox.tell(Envelope("block_actions", "interactive", payload, ts))

    async def edit(self, channel_id: str, ts: str, text: str) -> None:
        """Let a person change a message of theirs."""
        post = self._post(channel_id, ts)
        previous = post.payload()
        post.text, post.typed, post.edited = escape(text), text, True
        post.keep_state()
        self._events.changed(post, previous)

    async def delete(self, channel_id: str, ts: str) -> None:
        """Let a person delete a message.

        One with replies leaves a tombstone, and is told as a `message_changed` to it.
        """
        self._events.removed(self._post(channel_id, ts))

    async def stop(self, channel_id: str, thread_ts: str, user_id: str) -> None:
        """Press Slack's own stop button (docs: agent_session_stopped)."""
        sessions = self._web.sessions.get((channel_id, thread_ts), [])
        if sessions[-1:] != ["processing"]:
            raise LookupError("the button is there only while the session is processing")
        event: Payload = {
            "type": "agent_session_stopped",
            "channel": channel_id,
            "thread_ts": thread_ts,
            "user": user_id,
            "streaming_message_ts": [],
            "event_ts": self._workspace.timestamp(),
        }
        self._events.publish(self._workspace.channels[channel_id], event, ts=thread_ts)

    def screen(self, channel_id: str, thread_ts: str | None = None) -> list[Shown]:
        """Return what people see: a channel's top level, or a thread, its parent first."""
        if thread_ts is None:
            return [post.shown() for post in self._workspace.top_level(channel_id)]
        return [post.shown() for post in self._workspace.thread(channel_id, thread_ts)]

    def states(self, channel_id: str, ts: str) -> list[str]:
        """Return the texts that a message has shown, oldest first."""
        return list(self._workspace.channels[channel_id].posts[ts].states)

    def status(self, channel_id: str, thread_ts: str) -> list[str]:
        """Return the statuses that assistant.threads.setStatus has set, oldest first."""
        return list(self._web.statuses.get((channel_id, thread_ts), ()))

    def session(self, channel_id: str, thread_ts: str) -> list[str]:
        """Return the states that agents.sessions.setStatus has set, oldest first."""
        return list(self._web.sessions.get((channel_id, thread_ts), ()))

    def expire_response_urls(self) -> None:
        """Let the half hour of every response_url be over."""
        self._chat.expire_responses()

    def fail(
        self,
        method: str,
        *,
        status: int | None = 500,
        error: str | None = None,
        retry_after: float | None = None,
        hang: bool = False,
        applied: bool = False,
        times: int = 1,
        after: int = 0,
    ) -> None:
        """Let the next calls of a method go wrong, `times` of them after `after` good ones.

        `error` is answered with 200; status None drops the connection; `hang` never answers;
        `applied` does the work first. `response_url` is a method too.
        """
        if error is not None and status == 500:
            status = 200
        failure = Failure(status, error, retry_after, hang, applied, times, after)
        self._web.failures.setdefault(method, []).append(failure)

    async def disconnect(self, reason: str | None = "refresh_requested") -> None:
        """Close the sockets, after a word with the reason; with None they are cut off."""
        await self._socket.disconnect(reason)

    def _post(self, channel_id: str, ts: str) -> Post:
        post = self._workspace.find(channel_id, ts)
        if post is None:
            raise LookupError(f"nobody can see a message {ts} in {channel_id}")
        return post

    def _interaction(self, post: Post, user_id: str) -> Payload:
        """Return what docs: "block_actions payload" tells of where a button was pressed."""
        name = self._workspace.users[user_id]
        channel = self._workspace.channels[post.channel_id]
        container: Payload = {
            "type": "message",
            "message_ts": post.ts,
            "channel_id": channel.id,
            "is_ephemeral": False,
        }
        if post.thread_ts:
            container["thread_ts"] = post.thread_ts
        user = {"id": user_id, "username": name.lower(), "name": name.lower(), "team_id": TEAM_ID}
        return {
            "user": user,
            "api_app_id": APP_ID,
            "token": "an-old-verification-token",
            "container": container,
            "trigger_id": _trigger_id(),
            "team": {"id": TEAM_ID, "domain": "parley"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": channel.id, "name": channel.name},
            "message": post.payload(),
            "state": {"values": {}},
        }


def _trigger_id() -> str:
    return f"{secrets.randbelow(10**13)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"


def _answer(delivery: Delivery) -> Payload:
    """Return what the acknowledgement of a command says: JSON, or text for the person alone."""
    if delivery.status != 200 or not delivery.body.strip():
        return {}
    if not delivery.body.startswith("{"):
        return {"text": delivery.body}
    answer: Payload = json.loads(delivery.body)
    return answer if answer.get("text") or answer.get("blocks") else {}
