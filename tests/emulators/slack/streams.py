"""Slack's native streams: a message that grows by appends until it is stopped."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.emulators.clock import Clock
from tests.emulators.slack.arguments import SlackError, decoded, joined, text
from tests.emulators.slack.arguments import channel as named_channel
from tests.emulators.slack.blocks import (
    ALL_CHARACTERS,
    BLOCKS,
    MARKDOWN_CHARACTERS,
    check_blocks,
    words_of,
)
from tests.emulators.slack.chat import Chat, metadata
from tests.emulators.slack.events import Events
from tests.emulators.slack.markup import links, pings, tasks
from tests.emulators.slack.message import ANOTHER_APP, Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.sessions import Sessions, checked_state, thread_root
from tests.emulators.slack.workspace import Channel, Workspace

# Undocumented; "about 5 minutes" in slackapi/python-slack-sdk issue 1859 and many others, 306
# seconds in NousResearch/hermes-agent pull request 59010; appends do not prolong it.
SECONDS = 300.0
# Undocumented, and reports differ: of plain text 11,977 characters were taken and no 15,668
# (CopilotKit/CopilotKit issue 6063), with many tasks 10,600 to 11,300 bytes (openclaw/openclaw pull
# request 143882); hermes-agent pull request 59010 met no limit over all calls.
SIZE = 12_000
# The same pull request: with tasks, their titles and twice what else they say counted.
SIZE_WITH_TASKS, TASKS = 10_600, 50
# docs: chat.startStream, task_display_mode.
MODES = ("timeline", "plan")
# docs: chat.appendStream, "task_update chunks", and the types of the node SDK.
STATES = ("pending", "in_progress", "complete", "error")


def addition(args: Payload) -> tuple[Payload, ...]:
    """Return the chunks that a call brings; SlackError when one is refused."""
    chunks = decoded(args.get("chunks"), "invalid_chunks") or []
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise SlackError("invalid_chunks")
    return tuple(map(_checked, chunks))


def message_blocks(given: object) -> list[Payload]:
    """Return blocks with their ids; SlackError when they are refused or more than 50."""
    blocks = decoded(given, "invalid_blocks_format")
    if isinstance(blocks, list) and len(blocks) > BLOCKS:
        # docs: chat.stopStream, error msg_blocks_too_many.
        raise SlackError("msg_blocks_too_many")
    return check_blocks(blocks) or []


def _text_of(blocks: Collection[Payload]) -> str:
    """Return the text alone, without blocks."""
    return "".join(str(block["text"]) for block in blocks if block["type"] == "markdown")


def _grown(
    blocks: Sequence[Payload], chunks: Collection[Payload], *, is_plan: bool
) -> list[Payload]:
    """Return what a message shows with chunks added; SlackError when those are too many blocks.

    Slack renders each run of text as one block. A task that is known by its id changes its title
    and its status where it stands (openclaw/openclaw pull request 125168). In a plan all tasks are
    one block (docs: chat.startStream, task_display_mode), which stands where the first came: that
    it does, and that a timeline drops a plan's title, are guesses.
    """
    grown = [*blocks]
    for chunk in chunks:
        match chunk:
            case {"type": "task_update" | "plan_update"} if is_plan:
                grown = _planned(grown, chunk)
            case {"type": "plan_update"}:
                pass
            case {"type": "task_update"}:
                grown = _with_task(grown, chunk)
            case {"type": "blocks", "blocks": list(more)}:
                grown += more
            case {"text": words} if grown and grown[-1]["type"] == "markdown":
                grown[-1] = {**grown[-1], "text": f"{grown[-1]['text']}{words}"}
            case {"text": words}:
                grown.append({"type": "markdown", "text": words})
    if sum("block_id" in block for block in grown) > BLOCKS:
        raise SlackError("msg_blocks_too_many")
    return grown


def _planned(blocks: Sequence[Payload], chunk: Payload) -> list[Payload]:
    plans = [block for block in blocks if block["type"] == "plan"]
    plan: Payload = plans[0] if plans else {"type": "plan", "title": "", "tasks": []}
    if chunk["type"] == "task_update":
        changed = {**plan, "tasks": _with_task([*tasks([plan])], chunk)}
    else:
        changed = {**plan, "title": chunk["title"]}
    return [changed if block is plan else block for block in (blocks if plans else [*blocks, plan])]


def _with_task(blocks: Sequence[Payload], chunk: Payload) -> list[Payload]:
    name = chunk["id"]
    card: Payload = {"type": "task_card", "task_id": name, "title": chunk["title"]}
    card["status"] = chunk["status"]
    if any(block.get("task_id") == name for block in blocks):
        return [card if block.get("task_id") == name else block for block in blocks]
    return [*blocks, card]


def _checked(chunk: Payload) -> Payload:
    """Return a chunk as it is kept (docs: chat.appendStream, "Using the chunks parameter").

    Of a task's fields, `details`, `output` and `sources` are not emulated.
    """
    match chunk:
        case {"type": "task_update", "id": str(name), "title": str(title), "status": status} if (
            name and title and status in STATES and len(chunk) == 4
        ):
            return chunk
        case {"type": "plan_update", "title": str(title)} if title and len(chunk) == 2:
            return chunk
        case {"type": "markdown_text", "text": str(words)} if words:
            if len(words) > MARKDOWN_CHARACTERS:
                raise SlackError("msg_too_long")
            return chunk
        case {"type": "blocks", "blocks": list(blocks)} if blocks:
            return {"type": "blocks", "blocks": message_blocks(blocks)}
    raise SlackError("invalid_chunks")


@dataclass(slots=True)
class Stream:
    """The life of a streamed message; `ends` is on the clock.

    `recipient` is the person who sees it grow, None where everybody does.
    """

    clock: Clock
    ends: float
    recipient: str | None
    is_plan: bool = False
    blocks: list[Payload] = field(default_factory=list)
    is_over: bool = False
    is_stopped: bool = False  # by a person
    heard: set[str] = field(default_factory=set)

    @property
    def state(self) -> Literal["in_progress", "completed", "errored"]:
        """What Slack calls `streaming_state`; that an expired one is "errored" is a guess."""
        if self.is_over:
            return "completed"
        return "in_progress" if self.clock.now() < self.ends else "errored"


class Streams:
    """Writes as the bot into messages that grow; `seconds` is how long a new one may live.

    A person's press of Stop ends the streams at once, as the documentation has it
    (agent_session_stopped); agentconnect-md/agentconnect measured in August 2026 that it left them
    to the app.
    """

    def __init__(self, events: Events, chat: Chat, sessions: Sessions, clock: Clock) -> None:
        self.seconds = SECONDS
        self.methods = {
            "chat.appendStream": self.append,
            "chat.startStream": self.start,
            "chat.stopStream": self.finish,
        }
        self._events = events
        self._chat = chat
        self._sessions = sessions
        self._clock = clock
        self._begun: list[tuple[Post, Stream]] = []

    def start(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.startStream; it may bring nothing yet."""
        channel = joined(workspace, args)
        root = _root(workspace, channel, args)
        _check_recipient(workspace, channel, args)
        recipient = None if channel.person else text(args, "recipient_user_id")
        mode = text(args, "task_display_mode") or MODES[0]
        if mode not in MODES:
            raise SlackError("invalid_arguments", why="must be a valid enum value")
        ends = self._clock.now() + self.seconds
        stream = Stream(self._clock, ends, recipient, is_plan=mode == "plan")
        post = workspace.draft(
            channel.id, workspace.bot_id, "", thread_ts=root.ts, streaming=stream
        )
        self._grow(post, stream, addition(args))
        self._begun.append((post, stream))
        workspace.add(post)
        # Told as a new message without a subtype, in NousResearch/hermes-agent's captures of
        # September 2026; that a text of the start is in it, and that an append is told with
        # nothing, are guesses.
        self._events.posted(post)
        # docs: Agent sessions, "Messaging interactions": a stream that times out ends it. A press
        # of Stop does not ("Stopping a session").
        self._sessions.move(workspace, root, "processing", lasts=lambda: stream.state != "errored")
        return {"channel": channel.id, "ts": post.ts}

    def append(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.appendStream: adds to what is there, and never replaces it."""
        post, stream = self._own(workspace, args)
        if stream.is_stopped:
            # docs: chat.appendStream, error stopped_by_user.
            raise SlackError("stopped_by_user")
        _check_state(stream)
        chunks = addition(args)
        if not chunks:
            raise SlackError("no_text")
        self._grow(post, stream, chunks)
        post.keep_state()
        return {"channel": post.channel_id, "ts": post.ts}

    def finish(self, workspace: Workspace, args: Payload) -> Payload:
        """chat.stopStream: from now on the message is as any other."""
        post, stream = self._own(workspace, args)
        _check_state(stream)
        state = checked_state({"session_status": "active", **args}, "session_status")
        blocks, about = message_blocks(args.get("blocks")), metadata(args)
        previous = post.payload()
        self._grow(post, stream, addition(args), below=blocks)
        _end_tasks(post.blocks)
        post.metadata = about
        stream.is_over = True
        if post.readable != post.states[-1]:
            post.keep_state()
        self._events.changed(post, previous)
        root = workspace.find(post.channel_id, post.thread_ts or "")
        if root:
            self._sessions.move(workspace, root, state)
        return {"channel": post.channel_id, "ts": post.ts, "message": post.payload()}

    def stop(self, channel_id: str, thread_ts: str) -> list[str]:
        """Let a person press Stop; return the messages that were streaming in that thread."""
        here = [
            (post, stream)
            for post, stream in self._begun
            if (post.channel_id, post.thread_ts) == (channel_id, thread_ts)
            and stream.state == "in_progress"
            and not post.removed
        ]
        for _, stream in here:
            stream.is_stopped = stream.is_over = True
        return [post.ts for post, _ in here]

    def of_another(self, workspace: Workspace, channel_id: str, thread_ts: str, words: str) -> str:
        """Show what another app streams; only who reads the thread learns of it."""
        stream = Stream(self._clock, math.inf, None)
        post = workspace.draft(
            channel_id, ANOTHER_APP, words, thread_ts=thread_ts, streaming=stream
        )
        return workspace.add(post).ts

    def _own(self, workspace: Workspace, args: Payload) -> tuple[Post, Stream]:
        """Return a message that was begun as a stream; what was not is in no streaming state."""
        channel = named_channel(workspace, args)
        post = workspace.find(channel.id, text(args, "ts"))
        if post is None:
            raise SlackError("message_not_found")
        if not post.is_own:
            raise SlackError("message_not_owned_by_app")
        if not isinstance(post.streaming, Stream):
            raise SlackError("message_not_in_streaming_state")
        return post, post.streaming

    def _grow(
        self,
        post: Post,
        stream: Stream,
        chunks: tuple[Payload, ...],
        *,
        below: Collection[Payload] = (),
    ) -> None:
        """Show what was added, and at the end what stands below; SlackError leaves all as it is."""
        blocks = _grown(stream.blocks, chunks, is_plan=stream.is_plan)
        # In UTF-8 bytes (openclaw/openclaw pull request 143882).
        rows, said = [*tasks(blocks)], len(_text_of(blocks).encode())
        titles = sum(len(str(task["title"]).encode()) for task in rows)
        if said + titles > (SIZE_WITH_TASKS if rows and said else SIZE) or len(rows) > TASKS:
            raise SlackError("msg_too_long")
        shown = [*blocks, *below]
        if sum(map(len, words_of(shown))) > ALL_CHARACTERS:
            raise SlackError("msg_blocks_too_long")
        stream.blocks, post.text, post.blocks = blocks, _text_of(blocks), shown
        self._listen(post, stream)

    def _listen(self, post: Post, stream: Stream) -> None:
        """Keep what the message pings and previews by now: streams have no unfurl switches."""
        for found, heard in (
            (pings(post.text, post.blocks), self._chat.pings),
            (links(post.text, post.blocks), self._chat.unfurls),
        ):
            fresh = [word for word in dict.fromkeys(found) if word not in stream.heard]
            heard += fresh
            stream.heard.update(fresh)


def _end_tasks(blocks: list[Payload]) -> None:
    """Show tasks that a stream leaves undone as failed (vercel/chat pull request 917)."""
    for task in tasks(blocks):
        if task["status"] == "in_progress":
            task["status"] = "error"


def _root(workspace: Workspace, channel: Channel, args: Payload) -> Post:
    """Return the message that the stream answers.

    Without one Slack answers invalid_thread_ts, in channels too where its documentation allows a
    stream at top level (NangoHQ/integration-templates pull request 676, and agentconnect), and to
    an empty one invalid_arguments (vercel/chat issue 268). A guess: so it does to a reply's.
    """
    if args.get("thread_ts") == "":
        raise SlackError("invalid_arguments", why="must be a timestamp [/thread_ts]")
    root = thread_root(workspace, channel, text(args, "thread_ts"))
    if root is None:
        raise SlackError("invalid_thread_ts")
    return root


def _check_recipient(workspace: Workspace, channel: Channel, args: Payload) -> None:
    """Require who is to see the stream (docs: "Required when streaming to channels").

    The team is missed first (openclaw/openclaw issue 21213); for one that is not known the errors
    are those of openclaw/openclaw pull request 70370. The bot itself may be the recipient.
    """
    user_id, team_id = text(args, "recipient_user_id"), text(args, "recipient_team_id")
    if not team_id and not channel.person:
        raise SlackError("missing_recipient_team_id")
    if not user_id and not channel.person:
        raise SlackError("missing_recipient_user_id")
    if team_id not in ("", workspace.team_id):
        raise SlackError("team_not_found")
    if user_id not in ("", workspace.bot_user_id, *workspace.users):
        raise SlackError("user_not_found")


def _check_state(stream: Stream) -> None:
    if stream.state != "in_progress":
        raise SlackError("message_not_in_streaming_state")
