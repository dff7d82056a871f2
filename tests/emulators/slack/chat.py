"""The bot's writing: Slack's chat methods, with what they take and refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tests.emulators.slack.arguments import SlackError, decoded, flag, joined, text
from tests.emulators.slack.arguments import channel as named_channel
from tests.emulators.slack.blocks import check_blocks
from tests.emulators.slack.events import Events
from tests.emulators.slack.files import Files
from tests.emulators.slack.markup import links, pings, read
from tests.emulators.slack.message import Ephemeral, Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Channel, Workspace

# docs: chat.update, error msg_too_long; in bytes of the escaped text.
UPDATE_BYTES = 4000
# docs: chat.postMessage, "Truncating content".
POST_CHARACTERS = 40_000
# slackapi/java-slack-sdk issue 704: a longer text without blocks becomes several messages.
SPLIT_CHARACTERS = 4000
_UNESCAPED = re.compile(r"&(?!amp;|lt;|gt;)|<(?![@#!]|https?://|mailto:)")
# Arguments that nobody has needed yet; others are not in the description that truth.py reads.
_NOT_EMULATED = ("as_user", "attachments", "icon_emoji", "icon_url", "link_names", "username")


@dataclass(frozen=True, slots=True)
class Content:
    """The words and blocks of a message; None where none are named, or no metadata is."""

    text: str
    blocks: list[Payload] | None
    metadata: Payload | None

    @property
    def size(self) -> int:
        """The bytes of the text as Slack stores it: what is no markup and not escaped yet, is."""
        escaped = _UNESCAPED.sub(lambda m: "&amp;" if m[0] == "&" else "&lt;", self.text)
        return len(escaped.encode())


def content(args: Payload) -> Content:
    """Return what is to be said; SlackError when it is nothing, too long or malformed."""
    words, blocks = text(args, "text"), check_blocks(args.get("blocks"))
    if not (words.strip() or blocks):
        raise SlackError("no_text")
    return Content(words, blocks, metadata(args))


def metadata(args: Payload) -> Payload | None:
    """Return the metadata, None when none is given; SlackError when it is malformed.

    docs: Message metadata: an event_type, and an event_payload that is an object.
    """
    given = decoded(args.get("metadata"), "invalid_metadata_format")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise SlackError("invalid_metadata_format")
    kind, payload = given.get("event_type"), given.get("event_payload")
    if given and not (isinstance(kind, str) and kind and isinstance(payload, dict)):
        raise SlackError("invalid_metadata_schema")
    return given


class Chat:
    """Writes as the bot, and keeps what that would ping and preview."""

    def __init__(self, events: Events, files: Files, violations: list[str]) -> None:
        self.pings: list[str] = []
        self.unfurls: list[str] = []
        self.ephemerals: list[Ephemeral] = []
        self.methods = {
            "chat.delete": self.delete,
            "chat.postEphemeral": self.post_ephemeral,
            "chat.postMessage": self.post,
            "chat.update": self.update,
        }
        self._events = events
        self._files = files
        self._violations = violations

    def post(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.postMessage; a person's id stands for the DM with them (a guess)."""
        person = text(args, "channel")
        channel = workspace.dm(person) if person in workspace.users else joined(workspace, args)
        post = self.show(workspace, channel, args)
        return {"channel": post.channel_id, "ts": post.ts, "message": post.payload()}

    def update(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.update."""
        post = self._own(workspace, args, "cant_update_message")
        if post.is_streaming:
            # docs: chat.update, error streaming_state_conflict.
            raise SlackError("streaming_state_conflict")
        self.change(post, args)
        message = post.payload()
        if not self._files.tells:
            message.pop("files", None)
        return {"channel": post.channel_id, "ts": post.ts, "text": post.text, "message": message}

    def delete(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.delete."""
        post = self._own(workspace, args, "cant_delete_message")
        if post.is_streaming:
            # A guess: the documentation says nothing of it.
            raise SlackError("cant_delete_message")
        self._events.removed(post)
        return {"channel": post.channel_id, "ts": post.ts}

    def post_ephemeral(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.postEphemeral."""
        channel, user_id = joined(workspace, args), text(args, "user")
        if user_id not in workspace.users:
            raise SlackError("user_not_in_channel")
        self.whisper(workspace, channel, user_id, args)
        return {"message_ts": workspace.timestamp()}

    def show(self, workspace: Workspace, channel: Channel, args: Payload) -> Post:
        """Show a message of the bot to everybody in a channel."""
        said = content(args)
        self._listen(args, said)
        if flag(args, "unfurl_links") is not False or flag(args, "unfurl_media") is not False:
            self.unfurls += links(said.text, said.blocks or [])
        post = workspace.draft(
            channel.id,
            workspace.bot_id,
            self._cut(said),
            blocks=said.blocks or [],
            thread_ts=self._parent(workspace, channel, text(args, "thread_ts")),
            metadata=said.metadata,
        )
        workspace.add(post)
        self._events.posted(post)
        return post

    def change(self, post: Post, args: Payload) -> None:
        """Let a message of the bot read differently (docs: chat.update, text and blocks).

        A text without blocks takes their place, and only then people see that it was edited;
        metadata stays where none is given, and an empty one takes it away.
        """
        said = content(args)
        if said.size > UPDATE_BYTES:
            raise SlackError("msg_too_long")
        self._listen(args, said)
        previous = post.payload()
        self._files.attach(post, args)
        post.blocks = said.blocks or []
        post.text = said.text or post.text
        post.metadata = post.metadata if said.metadata is None else said.metadata
        if not post.blocks:
            post.mark_edited()
        post.keep_state()
        self._events.changed(post, previous)

    def whisper(self, workspace: Workspace, channel: Channel, user_id: str, args: Payload) -> None:
        """Show words to one person alone.

        In a thread they are shown only if it has a reply already (docs: chat.postEphemeral,
        thread_ts).
        """
        said = content(args)
        self._listen(args, said)
        seen = read(said.text, said.blocks or [])
        thread_ts = text(args, "thread_ts") or None
        if thread_ts is None or len(workspace.thread(channel.id, thread_ts)) > 1:
            ts, blocks = workspace.timestamp(), tuple(said.blocks or ())
            self.ephemerals.append(Ephemeral(channel.id, user_id, seen, thread_ts, ts, blocks))

    def whisper_instead(self, old: Ephemeral, args: Payload) -> Ephemeral:
        """Show other words in the place of those that one person saw."""
        said = content(args)
        self._listen(args, said)
        new = replace(old, text=read(said.text, said.blocks or []), blocks=tuple(said.blocks or ()))
        self.ephemerals[self.ephemerals.index(old)] = new
        return new

    def _own(self, workspace: Workspace, args: Payload, refusal: str) -> Post:
        channel = named_channel(workspace, args)
        post = workspace.find(channel.id, text(args, "ts"))
        if post is None:
            raise SlackError("message_not_found")
        if not post.is_own:
            raise SlackError(refusal)
        return post

    def _parent(self, workspace: Workspace, channel: Channel, thread_ts: str) -> str | None:
        """Return the thread that a post joins.

        One that does not exist is accepted, and the post stands in the channel
        (slackapi/python-slack-events-api issue 87).
        """
        parent = workspace.find(channel.id, thread_ts)
        if parent is None:
            return None
        if parent.thread_ts not in (None, parent.ts):
            # docs: chat.postMessage, thread_ts: "Avoid using a reply's ts value".
            self._violations.append(f"chat.postMessage: thread_ts {thread_ts} is a reply's")
            return parent.thread_ts
        return thread_ts

    def _cut(self, said: Content) -> str:
        """Return what Slack shows of a text; a bot that loses words or order does wrong."""
        if len(said.text) > POST_CHARACTERS:
            self._violations.append(f"chat.postMessage: Slack cuts {len(said.text)} characters")
        elif len(said.text) > SPLIT_CHARACTERS and not said.blocks:
            self._violations.append(f"chat.postMessage: Slack splits {len(said.text)} characters")
        return said.text[:POST_CHARACTERS]

    def _listen(self, args: Payload, said: Content) -> None:
        strange = [name for name in _NOT_EMULATED if args.get(name)]
        strange += ["parse"] if text(args, "parse") not in ("", "none") else []
        self._violations += [f"{name} is not emulated" for name in strange]
        self.pings += pings(said.text, said.blocks or [])
