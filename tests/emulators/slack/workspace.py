"""A workspace of the Slack emulator: its people, its channels and what is written in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.emulators.slack.installation import Installation
from tests.emulators.slack.message import SLACKBOT, TOMBSTONE, Post
from tests.emulators.slack.payload import Payload
from tests.emulators.timeline import Moment

_LONG_AGO = 1_700_000_000  # seconds since the epoch
Role = Literal["admin", "owner"]
Kind = Literal["channel", "group", "im", "mpim"]


@dataclass(slots=True)
class Channel:
    """A conversation; `home` is the app in its workspace, `member` whether the bot is in it.

    `type` is what events call `channel_type`; an `im` is the bot's DM with `person`. `signs` are
    what stands under a thread while the bot is at work, each with the thread's ts.
    """

    home: Installation
    id: str
    name: str
    member: bool
    type: Kind = "channel"
    person: str | None = None
    creator: str = SLACKBOT
    posts: dict[str, Post] = field(default_factory=dict)
    signs: list[tuple[str, Moment]] = field(default_factory=list)

    def payload(self) -> Payload:
        """Return the conversation object (docs: Conversation object)."""
        shared: Payload = {
            "id": self.id,
            "created": _LONG_AGO,
            "is_archived": False,
            "is_im": self.type == "im",
            "is_org_shared": False,
        }
        if self.person:
            return {**shared, "user": self.person, "priority": 0}
        nothing = {"value": "", "creator": "", "last_set": 0}
        return {
            **shared,
            "name": self.name,
            "name_normalized": self.name,
            "creator": self.creator,
            "is_channel": self.type == "channel",
            "is_general": self.name == "general",
            "is_group": self.type == "group",
            "is_member": self.member,
            "is_mpim": self.type == "mpim",
            "is_private": self.type != "channel",
            "is_shared": False,
            "topic": nothing,
            "purpose": nothing,
        }


class Workspace:
    """Holds one team; every timestamp that it gives out is new and later than the last.

    `serial` numbers people and channels, over all workspaces.
    """

    def __init__(self, name: str, home: Installation, *, serial: Callable[[], int]) -> None:
        self.name = name
        self.home = home
        self.users: dict[str, str] = {}
        self.locales: dict[str, str] = {}  # of people; docs: users.info, include_locale
        self.roles: dict[str, Role] = {}
        self.zones: dict[str, str] = {}  # by person
        # The workspaces, or organizations, of people who are from elsewhere.
        self.foreign: dict[str, str] = {}
        self.channels: dict[str, Channel] = {}
        self._serial = serial
        self._last = 0  # microseconds since the epoch

    @property
    def team_id(self) -> str:
        """The workspace's id."""
        return self.home.team_id

    def team_of(self, user_id: str) -> str:
        """Return the workspace of a person, or the organization if Slack names that instead."""
        return self.foreign.get(user_id, self.team_id)

    @property
    def bot_id(self) -> str:
        """The id that the bot's messages carry."""
        return self.home.bot_id

    @property
    def bot_user_id(self) -> str:
        """The id by which people mention the bot."""
        return self.home.bot_user_id

    def user(self, name: str) -> str:
        """Let a person join and return the user id."""
        user_id = f"U0PERSON{self._serial():03d}"
        self.users[user_id] = name
        return user_id

    def channel(
        self, name: str, *, member: bool = True, kind: Kind = "channel", creator: str = SLACKBOT
    ) -> str:
        """Open a channel, with or without the bot in it, and return its id."""
        channel_id = f"C0CHANNEL{self._serial():03d}"
        fresh = Channel(self.home, channel_id, name, member, kind, creator=creator)
        self.channels[channel_id] = fresh
        return channel_id

    def dm(self, user_id: str) -> Channel:
        """Return the bot's DM with a person, the same one every time."""
        channel_id = f"D{user_id[1:]}"
        fresh = Channel(self.home, channel_id, "directmessage", True, "im", user_id)
        return self.channels.setdefault(channel_id, fresh)

    def timestamp(self) -> str:
        """Return a `ts` for something that happens now."""
        self._last = max(time.time_ns() // 1000, self._last + 1)
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"

    def draft(self, channel_id: str, author: str, text: str, **more: Any) -> Post:
        """Return a new message that nobody sees yet."""
        return Post(self.home, self.timestamp(), channel_id, author, text, **more)

    def add(self, post: Post) -> Post:
        """Put a message on the screen."""
        posts = self.channels[post.channel_id].posts
        posts[post.ts] = post
        if post.thread_ts:
            # From its first reply on a parent says that it is in the thread it has begun.
            posts[post.thread_ts].thread_ts = post.thread_ts
        post.keep_state()
        return post

    def sign(self, channel_id: str, thread_ts: str, text: str) -> None:
        """Show a sign of life under a thread; an empty one takes it away."""
        moment = Moment(time.monotonic(), "sign", "", text)
        self.channels[channel_id].signs.append((thread_ts, moment))

    def timeline(self, channel_id: str, thread_ts: str | None = None) -> list[Moment]:
        """Return what changed on the screen of a channel's top level, or of a thread."""
        channel = self.channels[channel_id]
        shown = [moment for thread, moment in channel.signs if thread == thread_ts]
        for post in channel.posts.values():
            is_top = post.thread_ts in (None, post.ts)
            if is_top if thread_ts is None else thread_ts in (post.ts, post.thread_ts):
                shown += post.moments
        return sorted(shown, key=lambda moment: moment.at)

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
            post.vanish()
            return False
        post.author, post.text, post.typed, post.blocks = SLACKBOT, TOMBSTONE, None, []
        post.files = ()
        post.keep_state()
        return True
