"""The events that Slack writes about what happens in a workspace."""

from __future__ import annotations

import time
from collections.abc import Collection

from tests.emulators.slack.delivery import Envelope, Outbox
from tests.emulators.slack.workspace import (
    APP_ID,
    BOT_USER_ID,
    TEAM_ID,
    Channel,
    Payload,
    Post,
    Workspace,
)

# What a chat bot subscribes to; without "message.channels" it hears only mentions in channels.
EVENTS = frozenset({"app_mention", "message.channels", "message.im", "agent_session_stopped"})
_SUBSCRIPTIONS = {"channel": "message.channels", "im": "message.im"}


class Events:
    """Writes events as Slack does, for the channels and types that the app has subscribed to."""

    def __init__(self, workspace: Workspace, outbox: Outbox, subscribed: Collection[str]) -> None:
        self._workspace = workspace
        self._outbox = outbox
        self._subscribed = subscribed

    def posted(self, post: Post) -> None:
        """Tell of a new message; a mention in a channel is told twice, with one `ts`."""
        channel = self._workspace.channels[post.channel_id]
        event = {**post.payload(), "channel": channel.id, "event_ts": post.ts}
        if post.thread_ts and (parent := channel.posts.get(post.thread_ts)):
            event["parent_user_id"] = parent.payload()["user"]
        self._message(channel, event, post.ts)
        if not channel.person and post.typed is not None and mentions_bot(post.text):
            self.publish(channel, {**event, "type": "app_mention"}, ts=post.ts)

    def changed(self, post: Post, previous: Payload) -> None:
        """Tell that a message reads differently now."""
        change: Payload = {"message": post.payload(), "previous_message": previous}
        self._hidden(post, "message_changed", change)

    def removed(self, post: Post) -> None:
        """Take a message away and tell so; one with replies changes into its tombstone."""
        previous = post.payload()
        if self._workspace.remove(post):
            self.changed(post, previous)
            return
        change: Payload = {"deleted_ts": post.ts, "previous_message": previous}
        self._hidden(post, "message_deleted", change)

    def publish(self, channel: Channel, event: Payload, *, ts: str) -> None:
        """Tell of an event, when the app has subscribed to it and is there to hear it."""
        kind = str(event["type"])
        subscription = _SUBSCRIPTIONS[channel.type] if kind == "message" else kind
        if subscription not in self._subscribed or not channel.member:
            return
        envelope = Envelope(kind, "events_api", event, ts)
        self._outbox.post(_callback(envelope))

    def _hidden(self, post: Post, subtype: str, change: Payload) -> None:
        channel = self._workspace.channels[post.channel_id]
        event: Payload = {"type": "message", "subtype": subtype, "hidden": True, **change}
        now = self._workspace.timestamp()
        self._message(
            channel, {**event, "channel": channel.id, "ts": now, "event_ts": now}, post.ts
        )

    def _message(self, channel: Channel, event: Payload, ts: str) -> None:
        self.publish(channel, {**event, "channel_type": channel.type}, ts=ts)


def mentions_bot(text: str) -> bool:
    """Tell whether a text names the bot."""
    return f"<@{BOT_USER_ID}>" in text or f"<@{BOT_USER_ID}|" in text


def _callback(envelope: Envelope) -> Envelope:
    """Wrap the event as docs: Events API, "The event_callback wrapper"."""
    authorization = {
        "enterprise_id": None,
        "team_id": TEAM_ID,
        "user_id": BOT_USER_ID,
        "is_bot": True,
        "is_enterprise_install": False,
    }
    payload: Payload = {
        "token": "an-old-verification-token",
        "team_id": TEAM_ID,
        "context_team_id": TEAM_ID,
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
