"""Signs of life: the status line of a thread, and the agent session with its stop button."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tests.emulators.clock import Clock
from tests.emulators.slack.arguments import SlackError, decoded, joined, text
from tests.emulators.slack.arguments import channel as named_channel
from tests.emulators.slack.events import Events
from tests.emulators.slack.message import Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Channel, Workspace

# docs: agents.sessions.setStatus, "Acceptable values".
STATES = ("active", "processing", "suspended", "closed")
# docs: assistant.threads.setStatus, status: "A two minute timeout applies".
STATUS_SECONDS = 120.0
# docs: Agent sessions, "Session timeouts".
PROCESSING_SECONDS = 3600.0
# Undocumented: getsentry/junior pull request 56; a longer one is answered with invalid_arguments.
STATUS_CHARACTERS = 50
# docs: agents.sessions.rename, title.
TITLE_CHARACTERS = 200
PROMPTS = 4  # docs: assistant.threads.setSuggestedPrompts, "up to four"
STOPPED = "agent_session_stopped"
_TS = re.compile(r"\d{10}\.\d{6}")


@dataclass(slots=True)
class _Line:
    """The status line of one thread; `ts` is when it was last set, `ends` on the clock."""

    root: Post
    place: Channel
    said: list[str] = field(default_factory=list)
    ts: str = ""
    ends: float = 0.0


@dataclass(slots=True)
class _Session:
    """What one thread's session went through; `lasts` tells whether it may be processing still."""

    states: list[str]
    lasts: Callable[[], bool]
    title: str = ""

    def settled(self) -> list[str]:
        """Return the states up to now; processing ends by itself (docs: "Session timeouts")."""
        if self.states[-1:] == ["processing"] and not self.lasts():
            self.states.append("active")
        return list(self.states)


class Sessions:
    """Shows that the app is at work, until it has answered or the time for it is over.

    A thread is named by its channel and its root's `ts`.
    """

    def __init__(self, events: Events, clock: Clock, *, subscribed: Collection[str]) -> None:
        self.methods = {
            "agents.sessions.rename": self.rename,
            "agents.sessions.setStatus": self.set_session,
            "assistant.threads.setSuggestedPrompts": self.suggest,
            "assistant.threads.setStatus": self.set_status,
        }
        self._suggested: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        self._events = events
        self._clock = clock
        self._is_stoppable = STOPPED in subscribed
        self._lines: dict[tuple[str, str], _Line] = {}
        self._sessions: dict[tuple[str, str], _Session] = {}

    def set_status(self, workspace: Workspace, args: Payload) -> Payload:
        """assistant.threads.setStatus."""
        channel = joined(workspace, args, name="channel_id")
        root = thread_root(workspace, channel, _thread_ts(args, "invalid_arguments"))
        if root is None:
            # docs: assistant.threads.setStatus, error invalid_thread_ts.
            raise SlackError("invalid_thread_ts")
        if not isinstance(args.get("status"), str):
            raise SlackError("invalid_arguments", why="missing required field: status")
        if len(text(args, "status")) > STATUS_CHARACTERS:
            raise SlackError("invalid_arguments", why="must be less than 51 characters")
        line = self._lines.setdefault((root.channel_id, root.ts), _Line(root, channel))
        line.said.append(text(args, "status"))
        line.ts = workspace.timestamp()
        line.ends = self._clock.now() + STATUS_SECONDS
        workspace.sign(root.channel_id, root.ts, line.said[-1])
        self._bridge(workspace, line)
        return {}

    def set_session(self, workspace: Workspace, args: Payload) -> Payload:
        """agents.sessions.setStatus."""
        channel = named_channel(workspace, args, name="channel_id")
        if not channel.member:
            # docs: agents.sessions.setStatus, error not_authorized.
            raise SlackError("not_authorized")
        root = thread_root(workspace, channel, _thread_ts(args, "thread_ts_required"))
        if root is None:
            # A guess: the documentation has no error for a thread that is none.
            raise SlackError("invalid_arguments", why="no such thread")
        status = checked_state(args, "status")
        self.move(workspace, root, status)
        return {"status": status, "agent_status": status}

    def rename(self, workspace: Workspace, args: Payload) -> Payload:
        """agents.sessions.rename."""
        channel = joined(workspace, args, name="channel_id")
        session = self._sessions.get((channel.id, text(args, "thread_ts")))
        if session is None:
            raise SlackError("session_not_found")
        session.title = text(args, "title")
        if not 0 < len(session.title) <= TITLE_CHARACTERS:
            raise SlackError("invalid_arguments", why="must be less than 201 characters [/title]")
        return {"title": session.title}

    def suggest(self, workspace: Workspace, args: Payload) -> Payload:
        """assistant.threads.setSuggestedPrompts.

        With a thread an agent app suggests nothing, without an error (docs: its page).
        """
        channel = named_channel(workspace, args, name="channel_id")
        prompts = decoded(args.get("prompts"), "invalid_arguments")
        listed = prompts if isinstance(prompts, list) else []
        pairs = [(str(one.get("title") or ""), str(one.get("message") or "")) for one in listed]
        if not 0 < len(pairs) <= PROMPTS or not all(map(all, pairs)):
            raise SlackError("invalid_arguments", why="one to four prompts [/prompts]")
        if not text(args, "thread_ts"):
            self._suggested[channel.id] = (text(args, "title"), pairs)
        return {}

    def suggested(self, channel_id: str) -> tuple[str, list[tuple[str, str]]]:
        """Return what is suggested in a DM: a greeting, and titles with their messages."""
        return self._suggested.get(channel_id, ("", []))

    def title(self, channel_id: str, thread_ts: str) -> str:
        """Return the title of a session, empty where it has none."""
        session = self._sessions.get((channel_id, thread_ts))
        return session.title if session else ""

    def move(
        self,
        workspace: Workspace,
        root: Post,
        state: str,
        *,
        lasts: Callable[[], bool] | None = None,
    ) -> None:
        """Set a session's state; processing ends when it does not last, and after its hour.

        The app is told of the thread's root as changed, though it reads as before: captured from
        Slack in September 2026, NousResearch/hermes-agent, test of metadata-only message_changed.
        """
        session, previous = self._session(root), root.payload()
        session.states.append(state)
        is_early = self._until(PROCESSING_SECONDS)
        session.lasts = lambda: is_early() and (lasts is None or lasts())
        root.session = self._payload(workspace, session)
        if root is workspace.find(root.channel_id, root.ts):
            self._events.changed(root, previous)

    def states(self, channel_id: str, thread_ts: str) -> list[str]:
        """Return the states that a session was in, oldest first."""
        session = self._sessions.get((channel_id, thread_ts))
        return session.settled() if session else []

    def is_stoppable(self, channel_id: str, thread_ts: str) -> bool:
        """Tell whether people see the stop button (docs: Agent sessions, "Stopping a session")."""
        return self._is_stoppable and self.states(channel_id, thread_ts)[-1:] == ["processing"]

    def statuses(self, channel_id: str, thread_ts: str) -> list[str]:
        """Return the status lines that were set, oldest first."""
        line = self._lines.get((channel_id, thread_ts))
        return list(line.said) if line else []

    def shown(self, channel_id: str, thread_ts: str) -> str:
        """Return the status line that stands under a thread now, empty when there is none."""
        line = self._lines.get((channel_id, thread_ts))
        return line.said[-1] if line and self._is_shown(line) else ""

    def _is_shown(self, line: _Line) -> bool:
        """Tell whether nothing has taken a line away.

        That is another one, two minutes, or a message of the app in that thread
        (docs: Developing apps with AI features, "Setting the status").
        """
        posts = line.place.posts.values()
        answered = any(
            post.is_own and post.thread_ts == line.root.ts and post.ts > line.ts for post in posts
        )
        return not answered and self._clock.now() < line.ends

    def _bridge(self, workspace: Workspace, line: _Line) -> None:
        """Set the session as a status does (docs: Migrating to agent messaging, "bridge").

        That it is no longer processing when its line has gone is a guess.
        """
        state = "processing" if line.said[-1] else "active"
        if self._session(line.root).settled()[-1:] != [state]:
            self.move(workspace, line.root, state, lasts=lambda: self._is_shown(line))

    def _session(self, root: Post) -> _Session:
        key = (root.channel_id, root.ts)
        return self._sessions.setdefault(key, _Session([], self._until(0.0)))

    def _until(self, seconds: float) -> Callable[[], bool]:
        ends = self._clock.now() + seconds
        return lambda: self._clock.now() < ends

    def _payload(self, workspace: Workspace, session: _Session) -> Payload:
        """Return what a thread's root says of its session, as it was captured (see move)."""
        own = {
            "agent_bot_user_id": workspace.bot_user_id,
            "status": session.states[-1],
            "is_stoppable": self._is_stoppable,
        }
        return {
            "status": session.states[-1],
            "agent_bot_user_ids": [workspace.bot_user_id],
            "title": session.title,
            "agent_statuses": [own],
        }


def checked_state(args: Payload, name: str) -> str:
    """Return a session's state that the app has named; SlackError when there is none of that name.

    Slack answers so (NousResearch/hermes-agent pull request 113698); its documentation calls the
    error invalid_status.
    """
    state = text(args, name)
    if state not in STATES:
        raise SlackError("invalid_arguments", why=f"must be a valid enum value [/{name}]")
    return state


def thread_root(workspace: Workspace, channel: Channel, thread_ts: str) -> Post | None:
    """Return the message that begins a thread, None for a reply or nothing."""
    post = workspace.find(channel.id, thread_ts)
    return post if post and post.thread_ts in (None, post.ts) else None


def _thread_ts(args: Payload, refusal: str) -> str:
    thread_ts = text(args, "thread_ts")
    if not _TS.fullmatch(thread_ts):
        raise SlackError(refusal, why="missing required field: thread_ts")
    return thread_ts
