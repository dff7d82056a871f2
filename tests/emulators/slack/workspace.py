"""The workspace of the Slack emulator: its people, its channels and what is written in them."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

Payload = dict[str, object]

TEAM_ID = "T0PARLEY001"
APP_ID = "A0PARLEY001"
BOT_ID = "B0PARLEY001"
BOT_USER_ID = "U0PARLEYBOT"
SLACKBOT = "USLACKBOT"
TOMBSTONE = "This message was deleted."

# docs: Formatting message text, "Escaping text" and "Linking".
_MARKUP = re.compile(r"(<(?:[@#!]|https?://|mailto:)[^<>]*>)")
_BARE_LINK = re.compile(r"https?://[^\s<>]+")
_PING = re.compile(r"<!(?:channel|here|everyone|group|subteam\^[^<>|]*)(?:\|[^<>]*)?>|<@[^<>]*>")
_NAMED_PING = re.compile(r"@(?:channel|here|everyone)\b")
_LINK = re.compile(r"https?://[^\s<>|)\]]+")


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as people see it; `author` is a user id, or the bot id of a bot's own message.

    `buttons` are the action ids of those that can be pressed. Only a reply has a `thread_ts`.
    """

    ts: str
    channel_id: str
    author: str
    text: str
    buttons: tuple[str, ...]
    thread_ts: str | None


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """Words that only one person saw."""

    channel_id: str
    user_id: str
    text: str
    thread_ts: str | None = None


@dataclass(slots=True)
class Channel:
    """A public channel, or the DM of the bot with `person`."""

    id: str
    name: str
    member: bool
    person: str | None = None
    posts: dict[str, Post] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """What events call `channel_type`."""
        return "im" if self.person else "channel"

    def payload(self) -> Payload:
        """Return the conversation object."""
        if self.person:
            return {"id": self.id, "is_im": True, "user": self.person, "is_archived": False}
        return {
            "id": self.id,
            "name": self.name,
            "is_channel": True,
            "is_im": False,
            "is_private": False,
            "is_archived": False,
            "is_member": self.member,
        }


@dataclass(slots=True)
class Post:
    """A message; `text` is as written on the wire and `typed` what its author typed, if a person.

    `files` are names. `states` are the texts that people could read, oldest first.
    """

    ts: str
    channel_id: str
    author: str
    text: str
    blocks: list[Payload]
    thread_ts: str | None = None
    typed: str | None = None
    metadata: Payload | None = None
    files: tuple[str, ...] = ()
    edited: bool = False
    removed: bool = False
    states: list[str] = field(default_factory=list)

    @property
    def readable(self) -> str:
        """The text that a person reads."""
        return read(self.text, self.blocks) if self.typed is None else self.typed

    def keep_state(self) -> None:
        """Remember what can be read now."""
        self.states.append(self.readable)

    def shown(self) -> Shown:
        """Return what a person sees."""
        return Shown(
            ts=self.ts,
            channel_id=self.channel_id,
            author=self.author,
            text=self.readable,
            buttons=tuple(button for button, _, _ in buttons(self.blocks)),
            thread_ts=None if self.thread_ts == self.ts else self.thread_ts,
        )

    def payload(self) -> Payload:
        """Return the message object (docs: message event, and chat.postMessage's response)."""
        message: Payload = {"type": "message", "text": self.text, "ts": self.ts}
        message |= self._authorship()
        if self.blocks:
            message["blocks"] = self.blocks
        if self.thread_ts:
            message["thread_ts"] = self.thread_ts
        if self.edited:
            message["edited"] = {"user": message["user"], "ts": self.ts}
        if self.metadata:
            message["metadata"] = self.metadata
        return message | self._upload()

    def _upload(self) -> Payload:
        """Return what docs: file_share has of a person's files."""
        if not self.files:
            return {}
        files = [
            {"id": f"F0FILE{number:03d}", "name": name, "title": name, "user": self.author}
            for number, name in enumerate(self.files)
        ]
        return {
            "subtype": "file_share",
            "files": files,
            "upload": True,
            "display_as_bot": False,
            "bot_id": None,
        }

    def _authorship(self) -> Payload:
        if self.author == SLACKBOT:
            return {"user": SLACKBOT, "subtype": "tombstone", "hidden": True}
        if self.author != BOT_ID:
            client_msg_id = f"00000000-0000-4000-8000-{self.ts[-12:].replace('.', ''):0>12}"
            return {"user": self.author, "team": TEAM_ID, "client_msg_id": client_msg_id}
        profile = {"id": BOT_ID, "app_id": APP_ID, "name": "parley", "team_id": TEAM_ID}
        return {
            "user": BOT_USER_ID,
            "team": TEAM_ID,
            "bot_id": BOT_ID,
            "app_id": APP_ID,
            "bot_profile": profile,
        }


class Workspace:
    """Holds one team; every timestamp that it gives out is new and later than the last."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.channels: dict[str, Channel] = {}
        self._serial = itertools.count(1)
        self._last = 0  # microseconds since the epoch

    def user(self, name: str) -> str:
        """Let a person join and return the user id."""
        user_id = f"U0PERSON{next(self._serial):03d}"
        self.users[user_id] = name
        return user_id

    def channel(self, name: str, *, member: bool) -> str:
        """Open a public channel, with or without the bot in it, and return its id."""
        channel_id = f"C0CHANNEL{next(self._serial):03d}"
        self.channels[channel_id] = Channel(channel_id, name, member)
        return channel_id

    def dm(self, user_id: str) -> Channel:
        """Return the bot's DM with a person, the same one every time."""
        channel_id = f"D{user_id[1:]}"
        fresh = Channel(channel_id, "directmessage", member=True, person=user_id)
        return self.channels.setdefault(channel_id, fresh)

    def timestamp(self) -> str:
        """Return a `ts` for something that happens now."""
        self._last = max(time.time_ns() // 1000, self._last + 1)
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"

    def add(self, post: Post) -> Post:
        """Put a message on the screen."""
        posts = self.channels[post.channel_id].posts
        posts[post.ts] = post
        if post.thread_ts:
            # From its first reply on a parent says that it is in the thread it has begun.
            posts[post.thread_ts].thread_ts = post.thread_ts
        post.keep_state()
        return post

    def find(self, channel_id: str, ts: str) -> Post | None:
        """Return a message that can still be seen."""
        post = self.channels[channel_id].posts.get(ts)
        return None if post is None or post.removed else post

    def top_level(self, channel_id: str) -> list[Post]:
        """Return what the channel itself shows, oldest first."""
        posts = self.channels[channel_id].posts.values()
        return [post for post in posts if not post.removed and post.thread_ts in (None, post.ts)]

    def thread(self, channel_id: str, thread_ts: str) -> list[Post]:
        """Return a thread's messages, its parent first."""
        posts = self.channels[channel_id].posts.values()
        return [
            post for post in posts if not post.removed and thread_ts in (post.ts, post.thread_ts)
        ]

    def remove(self, post: Post) -> bool:
        """Delete a message; True when its replies keep its place as a tombstone.

        A parent with replies stays as Slackbot's "This message was deleted."
        (slackapi clients: matterbridge issue 600, openclaw pull request 22035).
        """
        if len(self.thread(post.channel_id, post.ts)) == 1:
            post.removed = True
            return False
        post.author, post.text, post.typed, post.blocks = SLACKBOT, TOMBSTONE, None, []
        post.files = ()
        post.keep_state()
        return True


def escape(typed: str) -> str:
    """Return what Slack sends for what a person typed; mentions are given in angle brackets."""
    pieces = _MARKUP.split(typed)
    return "".join(
        piece if odd else _plain(piece) for odd, piece in zip(_odd(), pieces, strict=False)
    )


def read(text: str, blocks: list[Payload]) -> str:
    """Return what a person reads: the words of the blocks, or the text where they have none."""
    words = [word for block in blocks if (word := _words(block)) is not None]
    joined = "\n".join(words) if words else text
    return joined.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def buttons(blocks: list[Payload]) -> Iterator[tuple[str, str, Payload]]:
    """Yield the action id, block id and object of every button."""
    for block in blocks:
        elements = block.get("elements")
        for element in [*(elements if isinstance(elements, list) else ()), block.get("accessory")]:
            if isinstance(element, dict) and element.get("type") == "button":
                yield str(element.get("action_id", "")), str(block.get("block_id", "")), element


def pings(text: str, blocks: list[Payload], *, names: bool) -> list[str]:
    """Return what would notify somebody; with `names` a plain @here does too (docs: link_names)."""
    texts = [text, *_spoken(blocks)]
    found = [ping for spoken in texts for ping in _PING.findall(spoken)]
    return found + [p for spoken in texts if names for p in _NAMED_PING.findall(spoken)]


def links(text: str, blocks: list[Payload]) -> list[str]:
    """Return the addresses that Slack would preview."""
    return [link for spoken in [text, *_spoken(blocks)] for link in _LINK.findall(spoken)]


def _odd() -> Iterator[bool]:
    return itertools.cycle((False, True))


def _plain(piece: str) -> str:
    escaped = piece.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BARE_LINK.sub(r"<\g<0>>", escaped)


def _words(block: Payload) -> str | None:
    text = block.get("text")
    if block.get("type") == "markdown":
        return str(text)
    if block.get("type") == "section" and isinstance(text, dict):
        return str(text.get("text"))
    return None


def _spoken(node: object) -> Iterator[str]:
    """Yield every text in which Slack reads mentions (docs: Block Kit, text and rich text)."""
    if isinstance(node, list):
        for item in node:
            yield from _spoken(item)
    if not isinstance(node, dict):
        return
    match node:
        case {"type": "mrkdwn" | "markdown", "text": str(text)}:
            yield text
        case {"type": "user", "user_id": str(user_id)}:
            yield f"<@{user_id}>"
        case {"type": "usergroup", "usergroup_id": str(group_id)}:
            yield f"<!subteam^{group_id}>"
        case {"type": "broadcast", "range": str(reach)}:
            yield f"<!{reach}>"
        case {"type": "link", "url": str(url)}:
            yield url
        case _:
            for value in node.values():
                yield from _spoken(value)
