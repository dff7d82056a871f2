"""A message, as it is on the wire and as people see it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from tests.emulators.slack.installation import APP_ID, Installation
from tests.emulators.slack.markup import buttons, cards, label_of, notes, read, rich_text
from tests.emulators.slack.payload import Payload
from tests.emulators.timeline import Moment

if TYPE_CHECKING:
    from tests.emulators.slack.files import File

SLACKBOT = "USLACKBOT"
ANOTHER_APP, ANOTHER_BOT = "U0ANOTHERAPP", "B0ANOTHERAPP"
TOMBSTONE = "This message was deleted."
THINKING = "Thinking…"


class Streaming(Protocol):
    """The life of a message that was begun as a stream."""

    @property
    def state(self) -> Literal["in_progress", "completed", "errored"]:
        """What Slack calls its `streaming_state`."""

    @property
    def recipient(self) -> str | None:
        """The person who sees it grow, None where everybody does."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as people see it; `author` is a user id, or the bot id of a bot's own message.

    `buttons` are the action ids of those that can be pressed, and `labels` what stands on them.
    Only a reply has a `thread_ts`. `notes` are the small lines of context blocks, and `files` the
    names and the bytes of files. `cards` are the titles of tasks, with their states.
    """

    ts: str
    channel_id: str
    author: str
    text: str
    buttons: tuple[str, ...]
    thread_ts: str | None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    cards: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """Words that only one person saw."""

    channel_id: str
    user_id: str
    text: str
    thread_ts: str | None = None
    ts: str = ""
    blocks: tuple[Payload, ...] = ()

    @property
    def buttons(self) -> dict[str, str]:
        """What stands on the buttons, by their action ids."""
        return {name: label_of(it) for name, _, it in buttons(list(self.blocks))}


@dataclass(slots=True)
class Post:
    """A message; `text` is as written on the wire and `typed` what its author typed, if a person.

    `home` is the app's installation in its workspace. `edited` is when it was changed, where people
    are told so, in Slack's whole seconds (slack-go/slack pull request 1256).
    `moments` are its posting, its edits and its deletion.
    """

    home: Installation
    ts: str
    channel_id: str
    author: str
    text: str
    blocks: list[Payload] = field(default_factory=list)
    thread_ts: str | None = None
    typed: str | None = None
    metadata: Payload | None = None
    files: tuple[File, ...] = ()
    attachments: list[Payload] = field(default_factory=list)
    team: str = ""  # of an author from elsewhere
    edited: str = ""
    removed: bool = False
    session: Payload | None = None
    streaming: Streaming | None = None
    moments: list[Moment] = field(default_factory=list)

    @property
    def readable(self) -> str:
        """The text that a person reads."""
        return read(self.text, self.blocks) if self.typed is None else self.typed

    @property
    def is_own(self) -> bool:
        """Whether the bot wrote it."""
        return self.author == self.home.bot_id

    @property
    def is_streaming(self) -> bool:
        """Whether the message is a stream that goes on."""
        return self.streaming is not None and self.streaming.state == "in_progress"

    @property
    def states(self) -> list[str]:
        """The texts that people could read, oldest first."""
        return [moment.text for moment in self.moments if moment.what != "delete"]

    def keep_state(self) -> None:
        """Remember what can be read now."""
        what: Literal["post", "edit"] = "edit" if self.moments else "post"
        self.moments.append(Moment(time.monotonic(), what, self.ts, self.readable))

    def vanish(self) -> None:
        """Be deleted."""
        self.removed = True
        self.moments.append(Moment(time.monotonic(), "delete", self.ts, ""))

    def seen_by(self, viewer: str | None) -> str:
        """Return the text that a person reads, in a stream the recipient if nobody is named.

        In a channel a running stream shows its text to its recipient alone
        (agentconnect-md/agentconnect issue 1494, agno-agi/agno pull request 6615).
        """
        recipient = self.streaming.recipient if self.streaming else None
        hidden = self.is_streaming and recipient and viewer not in (None, recipient)
        return THINKING if hidden else self.readable

    def shown(self, viewer: str | None = None) -> Shown:
        """Return what a person sees; see seen_by."""
        return Shown(
            ts=self.ts,
            channel_id=self.channel_id,
            author=self.author,
            text=self.seen_by(viewer),
            buttons=tuple(button for button, _, _ in buttons(self.blocks)),
            labels=tuple(label_of(button) for _, _, button in buttons(self.blocks)),
            notes=tuple(notes(self.blocks)),
            cards=tuple(cards(self.blocks)),
            files=tuple((file.name, file.data) for file in self.files),
            thread_ts=None if self.thread_ts == self.ts else self.thread_ts,
        )

    def payload(self) -> Payload:
        """Return the message object (docs: message event, and chat.postMessage's response)."""
        message: Payload = {"type": "message", "text": self.text, "ts": self.ts}
        message |= self._authorship()
        if blocks := self.blocks or self._typed():
            message["blocks"] = blocks
        if self.attachments:
            numbered = enumerate(self.attachments, start=1)
            message["attachments"] = [{"id": number} | one for number, one in numbered]
        if self.thread_ts:
            message["thread_ts"] = self.thread_ts
        if self.edited:
            message["edited"] = {"user": message["user"], "ts": self.edited}
        if self.metadata:
            message["metadata"] = self.metadata
        if self.session:
            message["agent_session"] = self.session
        if self.streaming:
            message["streaming_state"] = self.streaming.state
        if self.files and not self.is_own:
            # slackapi/slack-api-specs issue 62.
            del message["team"]
        return message | self._upload()

    def _typed(self) -> list[Payload]:
        """Return what a person's words are as blocks (slack-go/slack pull request 1256)."""
        return [rich_text(self.typed, block_id=f"r{self.ts[-6:]}")] if self.typed else []

    def mark_edited(self) -> None:
        """Let everybody see from now on that it was changed."""
        self.edited = f"{int(time.time())}.000000"

    def _upload(self) -> Payload:
        """Return what docs: file_share has of a person's files, or the files of an update."""
        if not self.files:
            return {}
        files = [file.in_message() for file in self.files]
        if self.is_own:
            return {"files": files}
        return {
            "subtype": "file_share",
            "files": files,
            "upload": True,
            "display_as_bot": False,
            "bot_id": None,
        }

    def _authorship(self) -> Payload:
        home = self.home
        if self.author == SLACKBOT:
            return {"user": SLACKBOT, "subtype": "tombstone", "hidden": True}
        if self.author == ANOTHER_APP:
            another = self._profile(ANOTHER_BOT, "A0ANOTHERAPP", "Another app")
            return {"user": ANOTHER_APP, "bot_id": ANOTHER_BOT, "bot_profile": another}
        if not self.is_own:
            client_msg_id = f"00000000-0000-4000-8000-{self.ts[-12:].replace('.', ''):0>12}"
            team: Payload = {"team": self.team or home.team_id}
            if self.team:
                team |= {"user_team": self.team, "source_team": self.team}
            return {"user": self.author, **team, "client_msg_id": client_msg_id}
        return {
            "user": home.bot_user_id,
            "team": home.team_id,
            "bot_id": home.bot_id,
            "app_id": APP_ID,
            "bot_profile": self._profile(home.bot_id, APP_ID, "parley"),
        }

    def _profile(self, bot_id: str, app_id: str, name: str) -> Payload:
        icons = {f"image_{size}": f"https://a.slack.test/{size}.png" for size in (36, 48, 72)}
        return {
            "id": bot_id,
            "app_id": app_id,
            "name": name,
            "team_id": self.home.team_id,
            "deleted": False,
            "updated": 0,
            "icons": icons,
        }
