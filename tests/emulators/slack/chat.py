"""The bot's writing: Slack's chat methods and response_url, with their limits and refusals."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from tests.emulators.slack.arguments import SlackError, flag, joined, mapping, text
from tests.emulators.slack.arguments import channel as named_channel
from tests.emulators.slack.blocks import check_blocks
from tests.emulators.slack.events import Events
from tests.emulators.slack.workspace import (
    BOT_ID,
    TEAM_ID,
    Channel,
    Ephemeral,
    Payload,
    Post,
    Workspace,
    links,
    pings,
    read,
)

# docs: chat.update, error msg_too_long; in bytes of the escaped text.
UPDATE_BYTES = 4000
# docs: chat.postMessage, "Truncating content": Slack cuts there; to refuse is stricter.
POST_CHARACTERS = 40_000
# slackapi/java-slack-sdk issue 704: a longer text without blocks becomes several messages.
SPLIT_CHARACTERS = 4000
# docs: chat.postMessage, argument markdown_text.
MARKDOWN_CHARACTERS = 12_000
# docs: Handling user interaction, "Message responses": within 30 minutes.
RESPONSES, RESPONSE_SECONDS = 5, 1800.0
_UNESCAPED = re.compile(r"&(?!amp;|lt;|gt;)|<(?![@#!]|https?://|mailto:)")


@dataclass(slots=True)
class _Response:
    """What a response_url leads to; `ts` is the message with the button, if there is one."""

    channel: Channel
    user_id: str
    ts: str | None
    expires: float  # monotonic seconds
    uses: int = 0


class Chat:
    """Writes as the bot, and keeps what that would ping and preview."""

    def __init__(self, workspace: Workspace, events: Events, violations: list[str]) -> None:
        self.pings: list[str] = []
        self.unfurls: list[str] = []
        self.ephemerals: list[Ephemeral] = []
        self._workspace = workspace
        self._events = events
        self._violations = violations
        self._responses: dict[str, _Response] = {}

    def post(self, args: Payload) -> Payload:
        """chat.postMessage; a person's id as the channel means the DM."""
        if text(args, "channel") in self._workspace.users:
            args = {**args, "channel": self._workspace.dm(text(args, "channel")).id}
        channel = joined(self._workspace, args)
        words, blocks = _content(args, limit=POST_CHARACTERS)
        if len(words) > SPLIT_CHARACTERS and not blocks and not args.get("markdown_text"):
            self._violations.append(f"chat.postMessage: Slack splits {len(words)} characters")
        post = self._show(channel, args, words, blocks)
        return {"channel": channel.id, "ts": post.ts, "message": post.payload()}

    def update(self, args: Payload) -> Payload:
        """chat.update; where blocks are not given a text takes their place (docs: "blocks")."""
        post = self._own(args, "cant_update_message")
        words, blocks = _content(args, limit=None)
        if _size(words) > UPDATE_BYTES and not args.get("markdown_text"):
            raise SlackError("msg_too_long")
        self._listen(args, words, blocks or [])
        previous = post.payload()
        post.blocks = blocks or []
        post.text = words or post.text
        post.metadata = mapping(args, "metadata") or post.metadata
        post.edited = True
        post.keep_state()
        self._events.changed(post, previous)
        message = post.payload()
        return {"channel": post.channel_id, "ts": post.ts, "text": post.text, "message": message}

    def delete(self, args: Payload) -> Payload:
        """chat.delete."""
        post = self._own(args, "cant_delete_message")
        self._events.removed(post)
        return {"channel": post.channel_id, "ts": post.ts}

    def post_ephemeral(self, args: Payload) -> Payload:
        """chat.postEphemeral."""
        channel, user_id = joined(self._workspace, args), text(args, "user")
        if user_id not in self._workspace.users:
            raise SlackError("user_not_in_channel")
        self._whisper(channel, user_id, args)
        return {"message_ts": self._workspace.timestamp()}

    def response_url(self, channel_id: str, user_id: str, ts: str | None = None) -> str:
        """Return the path of an address that takes five answers within half an hour."""
        key = secrets.token_hex(8)
        expires = time.monotonic() + RESPONSE_SECONDS
        channel = self._workspace.channels[channel_id]
        self._responses[key] = _Response(channel, user_id, ts, expires)
        return f"actions/{TEAM_ID}/{key}"

    def expire_responses(self) -> None:
        """Let the half hour of every response_url be over."""
        for response in self._responses.values():
            response.expires = 0.0

    def use_response(self, key: str, body: Payload) -> None:
        """Take what was posted to a response_url; SlackError when it takes no more."""
        response = self._responses.get(key)
        if response is None:
            raise SlackError("no_such_hook")
        if response.expires < time.monotonic():
            raise SlackError("expired_url")
        if response.uses >= RESPONSES:
            raise SlackError("used_url")
        response.uses += 1
        original = response.ts and self._workspace.find(response.channel.id, response.ts)
        if original and flag(body, "delete_original"):
            self._events.removed(original)
        elif original and flag(body, "replace_original"):
            self.update({**body, "channel": original.channel_id, "ts": original.ts})
        else:
            self.answer(response.channel.id, response.user_id, body)

    def answer(self, channel_id: str, user_id: str, body: Payload) -> None:
        """Show an answer to a command: to the person, or with `in_channel` to all."""
        channel = self._workspace.channels[channel_id]
        if text(body, "response_type") != "in_channel":
            self._whisper(channel, user_id, body)
            return
        words, blocks = _content(body, limit=POST_CHARACTERS)
        self._show(channel, body, words, blocks)

    def _show(
        self, channel: Channel, args: Payload, words: str, blocks: list[Payload] | None
    ) -> Post:
        self._listen(args, words, blocks or [])
        if flag(args, "unfurl_links") is not False or flag(args, "unfurl_media") is not False:
            self.unfurls += links(words, blocks or [])
        post = Post(
            ts=self._workspace.timestamp(),
            channel_id=channel.id,
            author=BOT_ID,
            text=words,
            blocks=blocks or [],
            thread_ts=self._parent(channel, text(args, "thread_ts")),
            metadata=mapping(args, "metadata"),
        )
        self._workspace.add(post)
        self._events.posted(post)
        return post

    def _whisper(self, channel: Channel, user_id: str, args: Payload) -> None:
        words, blocks = _content(args, limit=POST_CHARACTERS)
        self._listen(args, words, blocks or [])
        thread_ts = text(args, "thread_ts") or None
        seen = read(words, blocks or [])
        self.ephemerals.append(Ephemeral(channel.id, user_id, seen, thread_ts))

    def _own(self, args: Payload, refusal: str) -> Post:
        channel = named_channel(self._workspace, args)
        post = self._workspace.find(channel.id, text(args, "ts"))
        if post is None:
            raise SlackError("message_not_found")
        if post.author != BOT_ID:
            raise SlackError(refusal)
        return post

    def _parent(self, channel: Channel, thread_ts: str) -> str | None:
        """Return the thread that a post joins.

        One that does not exist is accepted, and the post stands in the channel
        (slackapi/python-slack-events-api issue 87).
        """
        parent = self._workspace.find(channel.id, thread_ts)
        if parent is None:
            return None
        if parent.thread_ts not in (None, parent.ts):
            # docs: chat.postMessage, thread_ts: "Avoid using a reply's ts value".
            self._violations.append(f"chat.postMessage: thread_ts {thread_ts} is a reply's")
            return parent.thread_ts
        return thread_ts

    def _listen(self, args: Payload, words: str, blocks: list[Payload]) -> None:
        names = args.get("parse") == "full" or flag(args, "link_names") is True
        self.pings += pings(words, blocks, names=names)


def _content(args: Payload, *, limit: int | None) -> tuple[str, list[Payload] | None]:
    """Return text and blocks; SlackError when they are none, too long or malformed."""
    words, markdown = text(args, "text"), text(args, "markdown_text")
    blocks = check_blocks(args.get("blocks"))
    if markdown and (words or blocks):
        raise SlackError("markdown_text_conflict")
    if len(markdown) > MARKDOWN_CHARACTERS or (limit is not None and len(words) > limit):
        raise SlackError("msg_too_long")
    if not (words.strip() or markdown.strip() or blocks or args.get("attachments")):
        raise SlackError("no_text")
    return words or markdown, blocks


def _size(words: str) -> int:
    """Return the bytes of a text as Slack stores it: what is no markup and not escaped yet, is."""
    return len(_UNESCAPED.sub(lambda m: "&amp;" if m[0] == "&" else "&lt;", words).encode())
