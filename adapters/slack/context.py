"""Reads the messages of a Slack thread before a question."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from adapters.slack.files import files_of
from adapters.slack.markup import mentioned, readable
from adapters.slack.reading import TS, WRITTEN, message_text, string_field
from adapters.slack.workspace import Workspace
from bot.domain import ContextMessage, Person, Turn
from bot.ports import Earlier, PartlyRead, ReadEarlier

log = logging.getLogger(__name__)

# docs: conversations.replies, argument limit. Slack gives a thread's oldest messages first, and the
# newest matter most, so all of them are requested.
_MOST_READ = 1000
_READ_SUBTYPES = (*WRITTEN, "bot_message")

Message = Mapping[str, object]


async def read_context(
    workspace: Workspace, turn: Turn, *, since: str, most: int
) -> Sequence[ContextMessage]:
    """Return the messages of a thread before a question, by one request at most.

    The thread's parent is the first, unless `since` names a later turn. Raises SurfaceError, and
    PartlyRead for a thread of more than a page (1000 messages; 15 for some apps): Slack gives the
    oldest first, and there is no way to ask for the newest.
    """
    channel, thread, asked = _place(turn)
    # A thread begins with the question, or there is nothing to read.
    if thread in ("", asked) or not most:
        return ()
    after = since.rpartition(":")[2] if since else ""
    if since and not TS.fullmatch(after):
        # That turn was a command, whose question is the thread's parent, or continues an answer.
        # Messages of earlier prompts are left out later.
        after = thread
    messages, more = await workspace.read(
        channel=channel, thread=thread, limit=_MOST_READ, oldest=after or None, latest=asked
    )
    found: list[Message] = [
        one
        for one in messages
        if after < str(one["ts"]) < asked and one.get("subtype") in _READ_SUBTYPES
    ]
    found.sort(key=lambda one: str(one["ts"]))
    root = [one for one in found[:1] if one["ts"] == thread]
    # The parent may be what is asked about.
    chosen = root + found[len(root) :][-most:]
    context = await context_messages(workspace, chosen, turn.person, channel=channel)
    if more:
        log.info("Turn %s: read only the beginning of thread %s", turn.id, turn.key)
        raise PartlyRead(context)
    return context


def is_shared(turn: Turn) -> bool:
    """Whether everybody who writes where a question was asked may read all that is there."""
    channel, _, _ = _place(turn)
    return channel != "" and not channel.startswith("D")


def earlier(workspace: Workspace, turn: Turn) -> ReadEarlier | None:
    """Return what reads the thread of a question, or else its channel; None in a DM."""
    channel, thread, asked = _place(turn)
    if not is_shared(turn):
        return None
    thread = "" if thread == asked else thread

    async def read(before: float, most: int) -> Earlier:
        latest = asked if asked and float(asked) < before else f"{before:.6f}"
        messages, more = await workspace.read(
            channel=channel, thread=thread, limit=_MOST_READ if thread else most, latest=latest
        )
        found = sorted((one for one in messages if _time(one) < float(latest)), key=_time)
        # Slack gives the oldest messages of a thread, but of a channel those before `latest`.
        is_more = len(found) > most if thread else bool(more)
        found = found[-most:]
        shown = [one for one in found if one.get("subtype") in _READ_SUBTYPES]
        said = await context_messages(workspace, shown, turn.person, channel=channel)
        return Earlier(
            [*zip(map(_time, shown), said, strict=True)],
            unread_before=_time(found[0]) if found and is_more else 0.0,
            has_gap=bool(thread and more),
        )

    return read


def _time(message: Message) -> float:
    return float(str(message["ts"]))


def _place(turn: Turn) -> tuple[str, str, str]:
    channel, thread, asked = (turn.place[name] for name in ("channel", "thread", "question"))
    return str(channel or ""), str(thread or ""), str(asked or "")


async def context_messages(
    workspace: Workspace, messages: Sequence[Message], asker: Person, *, channel: str
) -> list[ContextMessage]:
    """Convert messages of a channel to context, in the given order.

    An author whose name does not arrive in time has the id. The name is cached for the next prompt.
    """
    texts = [_text(workspace, one) for one in messages]
    names = await _names(workspace, messages, texts, asker)
    return [
        _context_message(workspace, one, text, names, channel=channel)
        for one, text in zip(messages, texts, strict=True)
    ]


def _text(workspace: Workspace, message: Message) -> str:
    # The text of an answer is the whole of it; its blocks have buttons and notes, too.
    own = message.get("bot_id") == workspace.identity.bot and string_field(message, "text")
    return own or message_text(message, previews=True)


async def _names(
    workspace: Workspace, messages: Sequence[Message], texts: Sequence[str], asker: Person
) -> dict[str, str]:
    """Return the known names of the authors, and of mentioned people and channels.

    Looks up the other people, those of the newest messages first.
    """
    newest, cached = messages[::-1], workspace.directory.cached
    own = workspace.identity.user
    known_names = {} if asker.name == asker.id else {asker.id: asker.name}
    speakers = [string_field(one, "user") for one in newest if not one.get("bot_id")]
    ids = [*speakers, *(user for text in texts[::-1] for user in mentioned(text, "@"))]
    people = [one for one in ids if one not in ("", own)]
    await workspace.directory.learn(people)
    channels = (channel for text in texts for channel in mentioned(text, "#"))
    return {one: known_names.get(one) or cached(one) for one in (*people, *channels)}


def _context_message(
    workspace: Workspace, message: Message, text: str, names: Mapping[str, str], *, channel: str
) -> ContextMessage:
    identity, user = workspace.identity, string_field(message, "user")
    text = readable(text, bot=identity.user, names=names)
    id_ = identity.turn_id(channel, string_field(message, "ts"))
    if user == identity.user or message.get("bot_id") == identity.bot:
        # Its files repeat what it said.
        return ContextMessage(id_, None, text)
    bot, profile = string_field(message, "bot_id"), message.get("bot_profile")
    name = string_field(profile, "name") or string_field(message, "username")
    person = Person(user or bot, names.get(user) or name or user or bot, identity.team)
    files = files_of(message, id_)
    return ContextMessage(id_, person, text, in_thread=not bot, files=files)
