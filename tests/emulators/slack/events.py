"""The events that Slack writes about what happens in a workspace."""

from __future__ import annotations

import time
from collections.abc import Collection

from tests.emulators.slack.app import App
from tests.emulators.slack.delivery import Envelope, Outbox
from tests.emulators.slack.installation import APP_ID, VERIFICATION_TOKEN, Installation
from tests.emulators.slack.message import Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.truth import Truth
from tests.emulators.slack.workspace import Channel

# What a chat bot subscribes to; without "message.channels" it hears only mentions in channels.
_PLACES = {"channel": "channels", "group": "groups", "im": "im", "mpim": "mpim"}
_SUBSCRIPTIONS = {kind: f"message.{name}" for kind, name in _PLACES.items()}
_OTHERS = ("agent_session_stopped", "app_home_opened", "app_mention", "app_uninstalled")
EVENTS = frozenset({*_OTHERS, "tokens_revoked", *_SUBSCRIPTIONS.values()})
# docs: the events' pages, "Required Scopes".
_SCOPES = {f"message.{name}": f"{name}:history" for name in _PLACES.values()}
_SCOPES |= {"app_mention": "app_mentions:read"}


class Events:
    """Writes events as Slack does: those that the app has subscribed to and has the scope for."""

    def __init__(
        self,
        app: App,
        outbox: Outbox,
        truth: Truth,
        *,
        subscribed: Collection[str],
        scopes: Collection[str],
    ) -> None:
        self._app = app
        self._outbox = outbox
        self._truth = truth
        self._subscribed = {name for name in subscribed if _SCOPES.get(name) in (None, *scopes)}

    def posted(self, post: Post) -> None:
        """Tell of a new message; a mention in a channel is told twice, with one `ts`.

        In a group DM too: slackapi/bolt-js issue 817, though others have only heard the message.
        Beside a file, it is told as a message alone (slackapi/bolt-python issue 925).
        """
        channel = self._app.where(post.channel_id).channels[post.channel_id]
        event = {**post.payload(), "channel": channel.id, "event_ts": post.ts}
        if post.thread_ts and (parent := channel.posts.get(post.thread_ts)):
            event["parent_user_id"] = parent.payload()["user"]
        self._message(channel, event, post.ts)
        if event.get("subtype") != "file_share":
            self._mention(channel, post, event)

    def changed(self, post: Post, previous: Payload) -> None:
        """Tell that a message reads differently now."""
        change: Payload = {"message": post.payload(), "previous_message": previous}
        self._hidden(post, "message_changed", change)

    def edited(self, post: Post, previous: Payload) -> None:
        """Tell that a person has changed a message.

        One that mentions the bot by now is told as app_mention, with its first `ts` and what an
        edited message has besides, however often (slackapi/bolt-js issue 960, slack-go/slack pull
        request 1256).
        """
        self.changed(post, previous)
        channel = self._app.where(post.channel_id).channels[post.channel_id]
        self._mention(channel, post, {**post.payload(), "channel": channel.id, "event_ts": post.ts})

    def removed(self, post: Post) -> None:
        """Take a message away and tell so; one with replies changes into its tombstone."""
        previous = post.payload()
        if self._app.where(post.channel_id).remove(post):
            self.changed(post, previous)
            return
        change: Payload = {"deleted_ts": post.ts, "previous_message": previous}
        self._hidden(post, "message_deleted", change)

    def publish(self, channel: Channel, event: Payload, *, ts: str) -> None:
        """Tell of an event in a channel, when the app is there to hear it."""
        subscription = _SUBSCRIPTIONS[channel.type] if event["type"] == "message" else None
        if channel.member:
            self.tell(channel.home, event, ts=ts, subscription=subscription)

    def tell(
        self, home: Installation, event: Payload, *, ts: str = "", subscription: str | None = None
    ) -> None:
        """Tell of an event in a workspace, when the app has subscribed to it."""
        kind = str(event["type"])
        if (subscription or kind) not in self._subscribed:
            return
        envelope = _callback(Envelope(kind, "events_api", event, ts), home)
        self._truth.told(envelope.payload)
        self._outbox.post(envelope)

    def _mention(self, channel: Channel, post: Post, event: Payload) -> None:
        mention = f"<@{post.home.bot_user_id}"
        is_called = f"{mention}>" in post.text or f"{mention}|" in post.text
        if not channel.person and post.typed is not None and is_called:
            self.publish(channel, {**event, "type": "app_mention"}, ts=post.ts)

    def _hidden(self, post: Post, subtype: str, change: Payload) -> None:
        workspace = self._app.where(post.channel_id)
        event: Payload = {"type": "message", "subtype": subtype, "hidden": True, **change}
        now = workspace.timestamp()
        told: Payload = {**event, "channel": post.channel_id, "ts": now, "event_ts": now}
        self._message(workspace.channels[post.channel_id], told, post.ts)

    def _message(self, channel: Channel, event: Payload, ts: str) -> None:
        self.publish(channel, {**event, "channel_type": channel.type}, ts=ts)


def _callback(envelope: Envelope, home: Installation) -> Envelope:
    """Wrap the event as docs: Events API, "The event_callback wrapper"."""
    authorization = {
        "enterprise_id": None,
        "team_id": home.team_id,
        "user_id": home.bot_user_id,
        "is_bot": True,
        "is_enterprise_install": False,
    }
    payload: Payload = {
        "token": VERIFICATION_TOKEN,
        "team_id": home.team_id,
        "context_team_id": home.team_id,
        "context_enterprise_id": None,
        "api_app_id": APP_ID,
        "event": envelope.payload,
        "type": "event_callback",
        "event_id": envelope.event_id,
        "event_time": int(time.time()),
        "authorizations": [authorization],
        "is_ext_shared_channel": False,
        "event_context": f"4-{envelope.event_id}",
    }
    return Envelope(envelope.kind, envelope.type, payload, envelope.ts, envelope.event_id)
