"""An emulator of Slack: the Web API, Socket Mode and signed HTTP for one app."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Literal, Unpack

from aiohttp import web

from tests.emulators.clock import Clock
from tests.emulators.faults import Fault, How, Terms
from tests.emulators.serving import judge, served
from tests.emulators.slack import people
from tests.emulators.slack.app import App
from tests.emulators.slack.chat import Chat
from tests.emulators.slack.conversations import Conversations
from tests.emulators.slack.delivery import Outbox
from tests.emulators.slack.events import EVENTS, Events
from tests.emulators.slack.files import Files, Upload
from tests.emulators.slack.installation import APP_ID, Installation
from tests.emulators.slack.interactions import Interactions, ResponseUrls
from tests.emulators.slack.limits import Limits
from tests.emulators.slack.markup import buttons, escape, feedback
from tests.emulators.slack.message import ANOTHER_APP, SLACKBOT, Shown
from tests.emulators.slack.methods import SCOPES
from tests.emulators.slack.oauth import OAuth
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.rates import Rate
from tests.emulators.slack.sessions import Sessions
from tests.emulators.slack.socket import SocketMode
from tests.emulators.slack.streams import Streams
from tests.emulators.slack.truth import Truth
from tests.emulators.slack.views import Views
from tests.emulators.slack.web import WebApi
from tests.emulators.slack.workspace import Channel, Role
from tests.emulators.timeline import Moment


class SlackEmulator:
    """Slack on 127.0.0.1: the Web API and Socket Mode on one port, as an async context manager.

    Leaving it raises AssertionError when the bot called a method that is not emulated, when it or
    the emulator went against Slack's description, or when a fault was asked for in vain. Limits,
    expiry and retries go by `clock`, the times in records are monotonic seconds. `latency` is
    seconds per call, half of it before the work is done. `retry_after` has the pauses before
    the retries of an event. `subscribed` has the app's event subscriptions, `scopes` what it
    was granted. `rates` takes the place of a method's documented rate, of which `share` times as
    much is true; with `unlisted` the app is sold outside of the Marketplace and may read little.
    `team_id` to `bot_token` are those of the first workspace.
    """

    app_id = APP_ID
    team_id, bot_id, bot_user_id = "T0PARLEY001", "B0PARLEY001", "U0PARLEY001"
    bot_mention = f"<@{bot_user_id}>"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        latency: float = 0.0,
        retry_after: tuple[float, ...] = (0.0, 60.0, 300.0),
        ack_within: float = 3.0,
        subscribed: Collection[str] = EVENTS,
        scopes: Collection[str] = SCOPES,
        rates: Mapping[str, Rate] | None = None,
        share: float = 1.0,
        unlisted: bool = False,
    ) -> None:
        self.clock = clock or Clock()
        self.latency = latency
        self.violations: list[str] = []
        truth = Truth(self.violations)
        self._app = App(scopes)
        self._socket = SocketMode(self.clock)
        self._outbox = Outbox(
            self._socket,
            self.clock,
            secret=self._app.signing_secret,
            retry_after=retry_after,
            ack_within=ack_within,
        )
        self._events = Events(self._app, self._outbox, truth, subscribed=subscribed, scopes=scopes)
        self.files = Files(self._app)
        self._chat = Chat(self._events, self.files, self.violations)
        self._sessions = Sessions(self._events, self.clock, subscribed=subscribed)
        self.streams = Streams(self._events, self._chat, self._sessions, self.clock)
        self._responses = ResponseUrls(self._chat, self.clock)
        self._views = Views(self.clock)
        interactions = Interactions(
            self._app, self._outbox, self._responses, self._views, self.violations
        )
        self._web = WebApi(
            self._app,
            Limits(self.clock, rates or {}, unlisted=unlisted, share=share),
            self._responses,
            truth,
            latency=lambda: self.latency,
            now=self.clock.now,
        )
        self.oauth = OAuth(self._app, self.clock, self.violations)
        self._web.methods = {
            **self._chat.methods,
            **self._sessions.methods,
            **self._socket.methods,
            **self.streams.methods,
            **Conversations(unlisted=unlisted).methods,
            **people.METHODS,
            **self.files.methods,
            **self._views.methods,
        }
        self._stack = AsyncExitStack()
        self.api_url = ""
        self.app_token = self._app.token
        self.signing_secret = self._app.signing_secret
        self.bot_token = self.install("Parley").bot_token
        self.channel_id = self.channel("general")
        self.connected = self._socket.connected
        self.deliveries = self._outbox.deliveries
        self.requests = self._web.requests
        self.unknown = self._web.unknown
        self.ephemerals = self._chat.ephemerals
        # People of another team, in channels that are shared with it; their role is one there.
        self.foreign = self._app.workspace(None).foreign
        self.pings = self._chat.pings
        self.unfurls = self._chat.unfurls
        # What people do: what each does stands where it is defined.
        self.slash, self.click, self.rate = (
            interactions.slash,
            interactions.click,
            interactions.rate,
        )
        self.press, self.press_home = interactions.press, interactions.press_home
        self.choose, self.submit = interactions.choose, interactions.submit
        self.interact = interactions.tell
        # What they see.
        self.modal, self.home = self._views.modal, self._views.home
        self.status, self.session = self._sessions.statuses, self._sessions.states
        self.session_title, self.suggested = self._sessions.title, self._sessions.suggested
        self.shown_status = self._sessions.shown
        # How Slack tells the app, and goes wrong.
        self.verify, self.deliver = self._outbox.verify, self._outbox.deliver
        self.redeliver = self._outbox.repeat
        self.send_frame, self.disconnect = self._socket.send_frame, self._socket.disconnect
        self.stall, self.cut = self._socket.stall, self._socket.cut
        self.heal = self._web.faults.heal
        # Tells of each call once its work is done, before its answer goes out.
        self.watch = self._web.watchers.append

    async def __aenter__(self) -> SlackEmulator:
        app = web.Application(client_max_size=4 * 1024**2)
        access = partial(self._web.serve_oauth, access=self.oauth.access)
        app.router.add_post("/api/oauth.v2.access", access)
        app.router.add_route("*", "/api/{method}", self._web.serve)
        app.router.add_post("/actions/{team}/{key}", self._web.serve_response)
        app.router.add_get("/link/", self._socket.serve)
        app.router.add_get("/files-pri/{file}/{name:.*}", self.files.serve)
        app.router.add_post("/upload/v1/{file}", self.files.receive)
        base = await self._stack.enter_async_context(served(app)) + "/"
        self._socket.base = self._responses.base = self.files.base = base
        self.api_url = f"{base}api/"
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._web.closing.set()
        await self._socket.close()
        await self._stack.aclose()
        # Last, for each call that was still answered may have put something into it.
        await self._outbox.close()
        if kind is None:
            judge(unknown=self.unknown, violations=self.violations, faults=self._web.faults)

    def install(self, name: str) -> Installation:
        """Install the app in one more workspace; its events come over the same socket or HTTP."""
        return self._app.install(name).home

    def revoke_bot_token(self) -> None:
        """Refuse the bot token from now on, and take the bot out of all channels.

        docs: auth.revoke, which "will [...] remove its channel memberships".
        """
        workspace = self._app.workspace(None)
        workspace.home = replace(workspace.home, bot_token=f"xoxb-{secrets.token_hex(12)}")
        for channel in workspace.channels.values():
            channel.member = channel.type == "im"

    def reinstall(self) -> None:
        """Install the app again, with another bot token, and invite the bot where it was."""
        workspace = self._app.workspace(None)
        self.bot_token = workspace.home.bot_token
        for channel in workspace.channels.values():
            channel.member = True

    def reset_signing_secret(self) -> None:
        """Sign with another secret from now on."""
        self.signing_secret = self._outbox.secret = secrets.token_hex(16)

    def grant(self, team_id: str, *, organization: str = "") -> Payload:
        """Return what oauth.v2.access answers to an installation in a workspace."""
        return self.oauth.issue(self._app.workspace(team_id), organization)

    def uninstall(self, team_id: str, *, tells: bool = True) -> None:
        """Let a workspace remove the app; `tells` the app of it (docs: app_uninstalled)."""
        self.oauth.uninstall(team_id)
        workspace = self._app.workspace(team_id)
        told: Payload = {"event_ts": workspace.timestamp()}
        if tells:
            revoked = {"type": "tokens_revoked", "tokens": {"bot": [workspace.bot_user_id]}, **told}
            self._events.tell(workspace.home, revoked)
            self._events.tell(workspace.home, {"type": "app_uninstalled", **told})

    def user(self, name: str, team_id: str | None = None, *, role: Role | None = None) -> str:
        """Let a person join a workspace, the first if none is named, and return the user id."""
        workspace = self._app.workspace(team_id)
        user_id = workspace.user(name)
        self.set_role(user_id, role)
        return user_id

    def set_role(self, user_id: str, role: Role | None) -> None:
        """Make a person an admin or an owner of their workspace, or neither."""
        roles = self._app.where(user_id).roles
        if role is None:
            roles.pop(user_id, None)
        else:
            roles[user_id] = role

    def set_zone(self, user_id: str, zone: str) -> None:
        """Let a person live in a time zone, such as "Asia/Tokyo"; at first all live in UTC."""
        self._app.where(user_id).zones[user_id] = zone

    def speaks(self, user_id: str, locale: str) -> None:
        """Let a person have a language, such as de-DE."""
        self._app.where(user_id).locales[user_id] = locale

    def set_creator(self, channel_id: str, user_id: str | None) -> None:
        """Let a channel have been created by a person, or by nobody who is known."""
        workspace = self._app.where(channel_id)
        workspace.channels[channel_id].creator = user_id or SLACKBOT

    def channel(
        self,
        name: str,
        *,
        member: bool = True,
        private: bool = False,
        team_id: str | None = None,
        creator: str = SLACKBOT,
    ) -> str:
        """Open a channel, with or without the bot in it, and return its id.

        It is in the first workspace if none is named, and everybody there is in it.
        """
        kind: Literal["channel", "group"] = "group" if private else "channel"
        return self._app.workspace(team_id).channel(name, member=member, kind=kind, creator=creator)

    def dm(self, user_id: str) -> str:
        """Return the id of the bot's DM with a person."""
        return self._app.where(user_id).dm(user_id).id

    def dm_of_others(self, *user_ids: str) -> str:
        """Return the id of a DM of two people, without the bot."""
        workspace = self._app.where(user_ids[0])
        place = f"D0{''.join(one.removeprefix('U0') for one in user_ids)}"
        home = workspace.home
        workspace.channels[place] = Channel(home, place, "directmessage", member=False, type="im")
        return place

    def group_dm(self, *user_ids: str) -> str:
        """Open a DM of the bot with several people of one workspace and return its id."""
        workspace = self._app.where(user_ids[0])
        names = "--".join(workspace.users[user_id].lower() for user_id in user_ids)
        return workspace.channel(f"mpdm-{names}-1", kind="mpim")

    async def say(
        self,
        channel_id: str,
        user_id: str,
        text: str,
        *,
        thread_ts: str | None = None,
        files: tuple[Upload, ...] = (),
    ) -> str:
        """Let a person write and return the message's ts; the app is told in the background.

        `text` is as typed, with mentions as `<@U…>`; the app gets it escaped. `files` are
        uploaded with it.
        """
        if thread_ts is not None:
            self._app.post(channel_id, thread_ts)
        workspace = self._app.where(channel_id)
        team = workspace.foreign.get(user_id, "")
        uploaded = (self.files.upload(workspace, user_id, one, another=bool(team)) for one in files)
        more = {"thread_ts": thread_ts, "typed": text, "files": (*uploaded,), "team": team}
        post = workspace.draft(channel_id, user_id, escape(text), **more)
        self._events.posted(workspace.add(post))
        return post.ts

    async def forward(
        self, channel_id: str, user_id: str, text: str, original: tuple[str, str]
    ) -> str:
        """Let a person share a message, named by its channel and ts, and return the new ts."""
        workspace, shared = self._app.where(channel_id), self._app.post(*original)
        address = f"https://parley.slack.com/archives/{original[0]}/p{shared.ts.replace('.', '')}"
        share: Payload = {
            "is_share": True,
            "is_msg_unfurl": True,
            "author_id": shared.author,
            "channel_id": shared.channel_id,
            "fallback": shared.text,
            "files": [file.in_message() for file in shared.files],
            "from_url": address,
            "text": shared.text,
            "ts": shared.ts,
        }
        post = workspace.draft(channel_id, user_id, escape(text), typed=text, attachments=[share])
        self._events.posted(workspace.add(post))
        return post.ts

    async def edit(self, channel_id: str, ts: str, text: str, *, tells: bool = True) -> None:
        """Let a person change a message of theirs; `tells` the bot of it."""
        post = self._app.post(channel_id, ts)
        previous = post.payload()
        post.text, post.typed = escape(text), text
        post.mark_edited()
        post.keep_state()
        if tells:
            self._events.edited(post, previous)

    async def delete(self, channel_id: str, ts: str) -> None:
        """Let a person delete a message.

        One with replies leaves a tombstone, and is told as a `message_changed` to it.
        """
        self._events.removed(self._app.post(channel_id, ts))

    async def delete_file(self, channel_id: str, ts: str, name: str) -> None:
        """Let a person delete a file of a message, which is not marked as edited by that."""
        post = self._app.post(channel_id, ts)
        previous = post.payload()
        next(file for file in post.files if file.name == name).deleted = True
        self._events.changed(post, previous)

    def change_file(self, channel_id: str, ts: str, **fields: object) -> None:
        """Let Slack report other fields of the first file of a message."""
        self._app.post(channel_id, ts).files[0].fields.update(fields)

    def refuse_feedback_buttons(self) -> None:
        """Be a Slack that does not know feedback buttons."""
        self._web.knows_feedback = False

    def is_rated(self, channel_id: str, ts: str) -> bool:
        """Whether a message has feedback buttons."""
        return any(feedback(self._app.post(channel_id, ts).blocks))

    def value(self, channel_id: str, ts: str, action_id: str) -> str:
        """Return what a press of this button would send as its value."""
        blocks = self._app.post(channel_id, ts).blocks
        return next(str(it["value"]) for name, _, it in buttons(blocks) if name == action_id)

    async def stop(self, channel_id: str, thread_ts: str, user_id: str) -> None:
        """Press Slack's own stop button (docs: agent_session_stopped)."""
        if not self._sessions.is_stoppable(channel_id, thread_ts):
            raise LookupError("the button is there only while the session is processing")
        workspace = self._app.where(channel_id)
        event: Payload = {
            "type": "agent_session_stopped",
            "channel": channel_id,
            "thread_ts": thread_ts,
            "user": user_id,
            "streaming_message_ts": self.streams.stop(channel_id, thread_ts),
            "event_ts": workspace.timestamp(),
        }
        self._events.publish(workspace.channels[channel_id], event, ts=thread_ts)

    def message_of_another(
        self,
        channel_id: str,
        thread_ts: str | None,
        text: str,
        *,
        metadata: Payload | None = None,
        blocks: Sequence[Payload] = (),
        attachments: Sequence[Payload] = (),
    ) -> str:
        """Let another app write into a channel or a thread, and return the message's ts."""
        workspace = self._app.where(channel_id)
        said = {"blocks": [*blocks], "attachments": [*attachments], "metadata": metadata}
        post = workspace.draft(channel_id, ANOTHER_APP, escape(text), thread_ts=thread_ts, **said)
        return workspace.add(post).ts

    def stream_of_another(self, channel_id: str, thread_ts: str, text: str) -> str:
        """Let another app stream into a thread, which never ends, and return the message's ts."""
        return self.streams.of_another(self._app.where(channel_id), channel_id, thread_ts, text)

    async def open_home(self, user_id: str, *, tab: str = "messages") -> None:
        """Let a person open the app's place in Slack (docs: app_home_opened)."""
        workspace = self._app.where(user_id)
        event: Payload = {
            "type": "app_home_opened",
            "user": user_id,
            "channel": workspace.dm(user_id).id,
            "tab": tab,
            "event_ts": workspace.timestamp(),
        }
        self._events.tell(workspace.home, event)

    def screen(
        self, channel_id: str, thread_ts: str | None = None, *, viewer: str | None = None
    ) -> list[Shown]:
        """Return what people see: a channel's top level, or a thread, its parent first.

        With a `viewer` it is what that person sees of a message that still streams.
        """
        workspace = self._app.where(channel_id)
        if thread_ts is None:
            return [post.shown(viewer) for post in workspace.top_level(channel_id)]
        return [post.shown(viewer) for post in workspace.thread(channel_id, thread_ts)]

    def timeline(self, channel_id: str, thread_ts: str | None = None) -> list[Moment]:
        """Return what changed on that screen, and when; a status line is a sign."""
        return self._app.where(channel_id).timeline(channel_id, thread_ts)

    def states(self, channel_id: str, ts: str) -> list[str]:
        """Return the texts that a message has shown, oldest first."""
        return self._app.where(channel_id).channels[channel_id].posts[ts].states

    @property
    def sockets(self) -> int:
        """How many sockets are open."""
        return self._socket.open_now

    def fail(
        self, call: str, how: How = "status", *, error: str | None = None, **terms: Unpack[Terms]
    ) -> Fault:
        """Let the next calls of a method go wrong; see Faults.add.

        `call` is found in the method's name, or in `response_url`. `error` is one that Slack
        answers with a status of 200.
        """
        if error is not None:
            terms["status"], terms["body"] = 200, {"ok": False, "error": error}
        return self._web.faults.add(call, how, **terms)

    @property
    def pending_faults(self) -> list[str]:
        """The calls of faults that have not struck yet."""
        return self._web.faults.in_vain()
