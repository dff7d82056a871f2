"""Turns Slack's events and button presses into calls of the intake."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adapters.slack.commands.answer_forms import AnswerForms
from adapters.slack.commands.calls import CommandLocation, Permissions
from adapters.slack.commands.home import Home
from adapters.slack.commands.parley import Parley
from adapters.slack.commands.views import CommandAnswer
from adapters.slack.errors import REQUEST_TIMEOUT, TokenRefused, translated
from adapters.slack.files import files_of, with_known_files
from adapters.slack.manifest import PARLEY
from adapters.slack.markup import mentioned, readable
from adapters.slack.reading import WRITTEN, message_text, string_field
from adapters.slack.reply.messages import CONTINUE, RATE, REGENERATE, STOP
from adapters.slack.reply.status import show_waiting
from adapters.slack.workspace import Workspace
from bot.cache import BoundedCache
from bot.commands.handlers import CommandHandlers
from bot.concurrency import do_nothing
from bot.domain import PRESSES, Asker, Consent, ContextMessage, Person, Rating, Turn
from bot.errors import NothingAsked, Refused, StoreUnavailable, SurfaceError
from bot.intake.addressed import Facts
from bot.intake.answers import ALLOWED_ONCE, THANKS
from bot.intake.intake import Admitted, Commanded, Intake, Received
from bot.languages import say, speak

log = logging.getLogger(__name__)

HELP = "Ask me something: I read what you write in the message that mentions me, or in a DM."

_SLACK_ITSELF = ("USLACKBOT", "USLACK")  # the latter writes notices into DMs (field)
# Mentions of groups.
_GROUP = re.compile(r"<!(?:here|channel|everyone|subteam\^)")

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A message that may be for the bot; `thread` is empty at the top level of a channel or DM.

    `thread_author` is the author of the thread's first message, empty if unknown. `edited` is the
    time of the last edit, empty if there is none. `team` is the person's workspace or organization,
    empty if Slack names none. `event` is the message as Slack sent it.
    """

    channel: str
    user: str
    event: Event
    text: str
    ts: str
    thread: str
    facts: Facts
    thread_author: str = ""
    edited: str = ""
    team: str = ""

    @property
    def id(self) -> str:
        """The current version of the message."""
        return f"{self.channel}:{self.ts}:{self.edited}"

    @property
    def reply_thread(self) -> str:
        """The thread of the reply; empty for the top level of a DM."""
        return self.thread or ("" if self.facts.direct else self.ts)


@dataclass(frozen=True, slots=True)
class Press:
    """A press of a button; `thread` is empty at the top level of a DM.

    `id` is the same if Slack sends the press again. `team` is the person's workspace, empty
    if Slack names none.
    """

    id: str
    action: str
    channel: str
    user: str
    thread: str
    turn_id: str
    rating: Rating | None = None
    team: str = ""
    consent: Consent | None = None
    call_id: str = ""


class EventHandler:
    """Passes Slack's events and button presses to the intake.

    When a method returns, everything is stored. Each raises StoreUnavailable. `on_conversation` is
    called with the channel and the thread of each admitted question; the thread is empty at the top
    level of a DM.
    """

    def __init__(
        self,
        workspace: Workspace,
        intake: Intake,
        *,
        on_conversation: Callable[[str, str], None] = do_nothing,
    ) -> None:
        permissions, handlers = Permissions(workspace), CommandHandlers(intake)
        self._home = Home(workspace, handlers, permissions)
        self.parley = Parley(workspace, handlers, permissions, on_change=self._home.show)
        self.answer_forms = AnswerForms(workspace, intake.answers)
        self._workspace = workspace
        self._client = workspace.client
        self._identity = workspace.identity
        self._directory = workspace.directory
        self._intake = intake
        self._on_conversation = on_conversation
        # The versions of messages that were answered by a notice instead of a turn: an edited
        # mention arrives again, and may be a question then. Other processes do not know them, so a
        # notice is repeated if Slack retries the event there.
        self._notified: BoundedCache[str, bool] = BoundedCache()
        self._notices = asyncio.Semaphore(workspace.limits.notices_in_flight)

    async def on_event(self, event: Event) -> None:
        """Handle any event of the Events API."""
        match event:
            # A message with replies is not deleted but replaced by a tombstone.
            case {"subtype": "message_deleted", "deleted_ts": str(ts)} | {
                "subtype": "message_changed",
                "message": {"subtype": "tombstone", "ts": str(ts)},
            }:
                await self._forget(event, ts)
            case {"subtype": "message_changed"}:
                if question := to_edit(event, bot=self._identity.user):
                    await self._on_question(question)
            case {"type": "app_mention" | "message"}:
                if question := to_question(event, bot=self._identity.user):
                    await self._on_question(question)
            case {"type": "agent_session_stopped"}:
                # It names the thread, and no message if nothing was streamed yet.
                channel, thread = string_field(event, "channel"), string_field(event, "thread_ts")
                await self._intake.changes.stop_thread(self._identity.key(channel, thread))
            case {"type": "app_home_opened"}:
                self._home.on_opened(event)
            case {"type": "app_uninstalled" | "tokens_revoked" as reason}:
                await self._on_removal(reason)

    async def on_press(self, body: Event) -> None:
        """Handle a press of a button; if it is refused, notify the person."""
        speak(await self._directory.language(string_field(body.get("user"), "id")))
        if await self.parley.on_press(body):
            return
        press = to_press(body)
        try:
            await self._act(press)
        except (Refused, StoreUnavailable) as error:
            self._notify(press, error.apology)

    async def _forget(self, event: Event, ts: str) -> None:
        channel = string_field(event, "channel")
        before = event.get("previous_message")
        # A message of a bot is never a question. An upload of a person has a `bot_id` of null.
        if not isinstance(before, dict) or not before.get("bot_id"):
            await self._intake.changes.forget(
                self._identity.turn_id(channel, ts), asked_at=float(ts)
            )
        elif before["bot_id"] == self._identity.bot:
            await self._intake.changes.forget(platform="slack", messages=[f"{channel}:{ts}"])

    async def _on_removal(self, reason: str) -> None:
        """Have the workspace forgotten, unless the token is valid: the event may be a late one.

        Raises SurfaceError if Slack cannot say so; then it sends the event again.
        """
        try:
            async with translated():
                await self._client.auth_test()
        except TokenRefused:
            log.warning("Workspace %s refuses the app: %s", self._identity.team, reason)
            await self._intake.forget_server("slack", self._identity.team)

    async def _act(self, press: Press) -> None:
        answers, turn_id, person_id = self._intake.answers, press.turn_id, press.user
        at = self._identity.key(press.channel)
        if press.action == STOP:
            await answers.stop(turn_id, person_id=person_id, at=at)
            return
        if press.consent == "answer":
            trigger = press.id.removeprefix("slack:")
            where = {"user": person_id, "channel": press.channel, "trigger": trigger}
            await self.answer_forms.open(turn_id, press.call_id, **where)
            return
        if consent := press.consent:
            manages = partial(self._manages, person_id)
            counted = await answers.decide(
                turn_id, press.call_id, consent, person_id=person_id, at=at, is_admin=manages
            )
            if counted != consent:
                self._notify(press, say(ALLOWED_ONCE))
            return
        asker = await self._asker(press)
        who: dict[str, Any] = {"person_id": person_id, "at": at, "asker": asker}
        if press.rating:
            await answers.rate(turn_id, rating=press.rating, **who)
            self._notify(press, say(THANKS))
        elif press.action == REGENERATE:
            who |= {"press_id": press.id, "reread": self._question_now}
            self._show_if_waiting(await answers.regenerate(turn_id, **who))
        elif press.action == CONTINUE:
            self._show_if_waiting(await answers.continue_answer(turn_id, press_id=press.id, **who))

    async def _question_now(self, turn: Turn) -> str:
        """Return the question of a turn as it stands in its message; empty if it has none."""
        channel, thread = str(turn.place["channel"]), str(turn.place["thread"] or "")
        ts = turn.place["question"]
        messages, _ = await self._workspace.read(
            channel=channel, thread=thread, limit=2, oldest=ts, latest=ts, inclusive=True
        )
        for one in messages:
            if one.get("ts") == ts and one.get("user") == turn.person.id:
                whole = await with_known_files(self._workspace, one)
                found = {**whole, "channel": channel, "type": "app_mention"}
                if question := to_question(found, bot=self._identity.user):
                    return await self._directory.readable(question.text, bot=self._identity.user)
        return ""

    async def _on_question(self, question: Question) -> None:
        if self._notified.get(question.id):
            return
        # Of people whom the bot does not answer, nothing is asked from Slack.
        is_called = question.facts.calls_bot or question.facts.direct
        speak(await self._directory.language(question.user, asks=is_called))
        match await self._intake.receive(await self._received(question)):
            case Admitted(turn):
                self._show_if_waiting(turn)
                self._on_conversation(question.channel, question.reply_thread)
                if turn.person.name == question.user:
                    self._workspace.jobs.start(self._store_name(turn))
            case Commanded(words):
                await self._run_command(question, words)
            case Refused() as refused if not (refused.repeated or self._notified.get(question.id)):
                self._notified.put(question.id, True)
                if isinstance(refused, NothingAsked):
                    self._notify(question, self._help(question), publicly=True)
                else:
                    self._notify(question, refused.apology, publicly=question.facts.direct)

    async def _received(self, question: Question) -> Received:
        channel, thread, facts = question.channel, question.thread, question.facts
        in_thread = thread and not facts.direct
        people = {question.user, question.thread_author} - {"", self._identity.user}
        text = readable(question.text, bot=self._identity.user, names={})
        name, _, argument = text.partition(" ")
        quote = None
        if thread not in ("", question.ts):
            # The thread's parent; only its id is known.
            quote = ContextMessage(self._identity.turn_id(channel, thread), None, "")
        turn = Turn(
            id=self._identity.turn_id(channel, question.ts),
            key=self._identity.key(channel, question.reply_thread),
            person=Person(question.user, question.user, self._identity.team),
            text=text,
            place=self._identity.place(
                channel, question.reply_thread, question=question.ts, team=question.team
            ),
            asked_at=float(question.ts),
            quote=quote,
            joins=True,
            asker=await self._asker(question),
        )
        return Received(
            turn=turn,
            facts=facts,
            edited_at=float(question.edited or 0),
            command=argument if name == PARLEY and (facts.calls_bot or facts.direct) else None,
            people=people if in_thread else (),
            stops_in="" if in_thread else channel,
            manages=partial(self._manages, question.user),
            complete=partial(self._complete, question),
        )

    async def _complete(self, question: Question, turn: Turn) -> Turn:
        """Add the names of people, places and files to a turn."""
        event = await with_known_files(self._workspace, question.event)
        text, name, where = await asyncio.gather(
            self._directory.readable(message_text(event), bot=self._identity.user),
            self._directory.name(question.user),
            self._directory.where(question.channel, workspace=self._identity.team_name),
        )
        person, zone = replace(turn.person, name=name), self._directory.zone(question.user)
        speak(await self._directory.language(question.user, asks=False))
        files = files_of(event, turn.id)
        return replace(turn, text=text, files=files, person=person, where=where, zone=zone)

    async def _store_name(self, turn: Turn) -> None:
        """Store a name that did not arrive in time for the turn."""
        name = await self._directory.name(turn.person.id, within=REQUEST_TIMEOUT)
        try:
            await self._intake.history.save_name(turn.key, Person(turn.person.id, name))
        except StoreUnavailable as error:
            log.warning("Turn %s: cannot store the person's name: %s", turn.id, error)

    async def _asker(self, by: Question | Press) -> Asker:
        rules = self._intake.access.rules
        return await self._workspace.asker(rules, by.channel, by.user, team=by.team)

    def _show_if_waiting(self, turn: Turn) -> None:
        self._workspace.signs.start(show_waiting(self._workspace, self._intake, turn))

    async def _run_command(self, question: Question, command: str) -> None:
        """Run a command in a message, once in this process, and answer it."""
        self._notified.put(question.id, True)
        answer = await self.parley.carry_out(
            command,
            id_=self._identity.turn_id(question.channel, question.ts),
            location=CommandLocation(question.channel, question.thread),
            user=question.user,
        )
        self._notify(question, answer, publicly=question.facts.direct)

    async def _manages(self, user: str) -> bool:
        try:
            return await self._workspace.is_admin(user)
        except SurfaceError as error:
            log.warning("Cannot tell whether %s is an admin: %s", user, error)
            return False

    def _help(self, question: Question) -> str:
        missing_read_scopes = self._identity.missing_read_scopes
        if question.facts.direct or not missing_read_scopes:
            return say(HELP)
        lacks = "I only see mentions where my app lacks {scopes}."
        return f"{say(HELP)} {say(lacks, scopes=', '.join(missing_read_scopes))}"

    def _notify(
        self, to: Question | Press, notice: str | CommandAnswer, *, publicly: bool = False
    ) -> None:
        """Post a notice in the background: an event that waits for it would be retried."""
        answer = CommandAnswer(notice) if isinstance(notice, str) else notice
        if not answer.text:
            return
        if self._notices.locked():
            log.info("Dropped a notice to a person: too many in flight")
            return
        fields: dict[str, Any] = {"channel": to.channel, **answer.message()}
        if publicly and isinstance(to, Question):
            fields["thread_ts"] = to.reply_thread or None
            post = self._client.chat_postMessage(**fields)
        else:
            # An ephemeral message is not shown in a thread that has no replies yet.
            fields["thread_ts"] = to.thread or None
            post = self._client.chat_postEphemeral(**fields, user=to.user)
        self._workspace.jobs.start(self._deliver(post))

    async def _deliver(self, post: Coroutine[Any, Any, object]) -> None:
        try:
            async with self._notices, translated():
                await post
        except SurfaceError as error:
            log.warning("Cannot post a notice to a person: %s", error)


def to_question(event: Event, *, bot: str) -> Question | None:
    """Return the message of an app_mention or message event that may be for the bot; else None.

    `bot` is the user id of the bot. The message of an edit can be parsed, too, with the event's
    `channel` and `channel_type`. A mention in a channel arrives as both events, with the same `ts`;
    the `message` is ignored. It arrives again, only as a mention, if it is edited
    (slackapi/bolt-js issue 960).
    """
    subtype = event.get("subtype")
    # A person's upload has a `bot_id` too, which is null (docs: file_share).
    is_written = subtype in WRITTEN and not event.get("bot_id")
    user, text = string_field(event, "user"), string_field(event, "text")
    if not is_written or user in ("", *_SLACK_ITSELF, bot):
        return None
    kind, channel = string_field(event, "channel_type"), string_field(event, "channel")
    people, is_mention = mentioned(text, "@"), event["type"] == "app_mention"
    edit = event.get("edited")
    edited = string_field(edit, "ts") if string_field(edit, "user") == user else ""
    facts = Facts(
        direct=kind == "im" or channel.startswith("D"),
        calls_bot=is_mention or bot in people,
        calls_other=bool({*people} - {bot, user}) or _GROUP.search(text) is not None,
        edited=bool(edited),
    )
    ts, thread = string_field(event, "ts"), string_field(event, "thread_ts")
    # A mention beside a file arrives as `message` alone (slackapi/bolt-python issue 925). Guess:
    # with other subtypes, too. Slack's documentation leaves it open for group DMs.
    comes_as_mention = facts.calls_bot and not is_mention and subtype is None and kind != "mpim"
    # A question without its mention is still one.
    may_follow = thread not in ("", ts) or facts.edited
    if not facts.direct and (comes_as_mention or not (facts.calls_bot or may_follow)):
        return None
    return Question(
        channel=channel,
        user=user,
        event=event,
        text=message_text(event),
        ts=ts,
        thread=thread,
        facts=facts,
        thread_author=string_field(event, "parent_user_id"),
        edited=edited,
        team=_team(event),
    )


def to_edit(event: Event, *, bot: str) -> Question | None:
    """Return the question that its author has edited, by a message_changed event; None for others.

    Previews of links and changes of an agent session change a message, too; the deletion of one of
    its files counts as an edit. An edited mention may also arrive as an app_mention; the second of
    both changes nothing.
    """

    def read(message: object) -> Question | None:
        if not isinstance(message, dict):
            return None
        is_mention = f"<@{bot}" in string_field(message, "text")
        where = {name: event.get(name) for name in ("channel", "channel_type")}
        kind = "app_mention" if is_mention else "message"
        return to_question({**message, **where, "type": kind}, bot=bot)

    question, before = read(event.get("message")), read(event.get("previous_message"))
    if question is None or (before and before.text == question.text):
        return None
    if before and len(files_of(question.event, "")) < len(files_of(before.event, "")):
        # Slack gives the time of an edit in whole seconds: a later one must not seem older.
        at = string_field(event, "ts").partition(".")[0]
        return replace(question, edited=at, facts=replace(question.facts, edited=True))
    return question if question.edited else None


def to_press(body: Event) -> Press:
    """Return the press of a block_actions payload."""
    action, user, container = body["actions"][0], body["user"], body["container"]
    turn_id, rating, call_id = action["value"], None, ""
    consent = PRESSES.get(action["action_id"])
    if action["action_id"] == RATE:
        # The value of the one that was pressed (bolt's templates for agents).
        rating, _, turn_id = turn_id.partition(":")
    elif consent:
        call_id, _, turn_id = turn_id.partition(":")
    return Press(
        id=f"slack:{body['trigger_id']}",
        action=action["action_id"],
        channel=container["channel_id"],
        user=user["id"],
        thread=string_field(container, "thread_ts"),
        turn_id=turn_id,
        rating=rating,
        team=string_field(user, "team_id"),
        consent=consent,
        call_id=call_id,
    )


def _team(event: Event) -> str:
    """Return the workspace of the author, in a channel that workspaces share; empty if unknown.

    `user_team` may be an organization, beside a `team` that is not the author's (slack-bolt 1.30,
    `extract_actor_team_id`). File uploads have none (slackapi/slack-api-specs issue 62).
    """
    teams = [string_field(event, name) for name in ("user_team", "source_team", "team")]
    workspaces = (team for team in teams[:2] if team.startswith("T"))
    return next(workspaces, "") or next(filter(None, teams), "")
