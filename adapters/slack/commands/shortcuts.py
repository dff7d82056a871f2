"""The entries in the menu of a message: a question about it, and a summary from there on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from adapters.slack.commands import views
from adapters.slack.commands.ask_command import AskCommand, CommandQuestion, in_time
from adapters.slack.commands.calls import CommandLocation
from adapters.slack.commands.views import ViewContext
from adapters.slack.context import context_messages
from adapters.slack.errors import NotInvited, missing_scopes, translated
from adapters.slack.manifest import ASK_ABOUT_ID, QUESTION_ID
from adapters.slack.reading import TS, string_field
from adapters.slack.workspace import Messages, Workspace
from bot.commands.handlers import ASK_ABOUT, SUMMARISE, SUMMARY_QUESTION, Field, Form, excuse
from bot.domain import Person, ThreadKey
from bot.errors import ParleyError, SurfaceError, WriteDelayed
from bot.intake.intake import Intake

log = logging.getLogger(__name__)

_GONE = "This form has expired. Please choose the message again."
_ASKED = "I have posted your question in the thread of this message, and answer it there."
_ASKS, _IN_PART = "asks for a summary from here", ", of which I can read only a part"
_SELDOM = "Slack lets me read only now and then. Please try again in a minute."
_MOST_QUESTION = 3000  # characters, as of any input

_T = TypeVar("_T")
Body = Mapping[str, object]


class Shortcuts:
    """Handles message shortcuts. Answers are posted publicly in the message's thread."""

    def __init__(self, workspace: Workspace, intake: Intake, ask: AskCommand) -> None:
        self._workspace = workspace
        self._client = workspace.client
        self._intake = intake
        self._ask = ask
        self._team = workspace.identity.team

    async def on_shortcut(self, body: Body) -> None:
        """Open a modal for a question about a message, or ask for a summary from there on."""
        match body:
            case {
                "callback_id": str(callback),
                "trigger_id": str(trigger),
                "user": {"id": str(user)},
                "channel": {"id": str(channel)},
                "message": dict(message),
            } if TS.fullmatch(string_field(message, "ts")):
                location = CommandLocation(
                    channel, string_field(message, "thread_ts") or str(message["ts"])
                )
            case _:
                log.warning("Cannot read a shortcut: its person, channel or message is missing")
                return
        arrived = asyncio.get_running_loop().time()
        team = string_field(body.get("user"), "team_id")
        try:
            await self._check_access(location, user, team, arrived=arrived)
            if callback == ASK_ABOUT_ID:
                view = await self._question(trigger, location, message, user=user, arrived=arrived)
            else:
                view = await self._summarise(
                    trigger, location, message, user=user, team=team, arrived=arrived
                )
        except ParleyError as error:
            log.info("Shortcut in %s failed: %r", channel, error)
            view = views.notice_view(self._sentence(error))
        try:
            async with translated(self._workspace.limits.command_answered_within):
                if view:
                    await self._client.views_open(trigger_id=trigger, view=view)
        except SurfaceError as error:
            log.warning("Cannot open a view in %s: %s", channel, error)

    async def on_submit(self, body: Body) -> dict[str, object]:
        """Ask the submitted question about a message."""
        arrived = asyncio.get_running_loop().time()
        view = body.get("view")
        context = ViewContext.of(view)
        user = string_field(body.get("user"), "id")
        if not isinstance(view, dict) or context is None or not user:
            return views.updated(_GONE)
        try:
            kept = self._intake.history.kept_message(context.kept)
            about = await self._in_time(kept, arrived=arrived)
        except ParleyError as error:
            return views.updated(excuse(error))
        if about is None:
            return views.updated(_GONE)
        text = views.values(view).get("question", "")
        notice = await self._ask.ask(
            CommandQuestion(
                id=f"slack:{self._team}:view:{string_field(view, 'id')}",
                user=user,
                name=string_field(body.get("user"), "name"),
                channel=context.location.channel,
                thread=context.location.thread,
                text=text if isinstance(text, str) else "",
                quote=about,
                team=string_field(body.get("user"), "team_id"),
            ),
            arrived=arrived,
        )
        return views.updated(notice or _ASKED)

    async def _check_access(
        self, location: CommandLocation, user: str, team: str, *, arrived: float
    ) -> None:
        key = ThreadKey("slack", self._team, location.channel, location.thread)
        asker = await self._workspace.asker(
            self._intake.access.rules, location.channel, user, team=team
        )
        person = Person(user, user, self._team)
        await self._in_time(self._intake.access.check(key, person, asker), arrived=arrived)

    async def _question(
        self, trigger: str, location: CommandLocation, message: Body, *, user: str, arrived: float
    ) -> views.View:
        """Store the message, which may be too long for the view, and return the form."""
        [about] = await context_messages(
            self._workspace, [message], Person(user, user), channel=location.channel
        )
        name = f"slack:{trigger}"
        await self._in_time(self._intake.history.keep_message(name, about), arrived=arrived)
        question = Field(
            name="question",
            label="What do you want to know?",
            hint="I answer in the thread of the message, where everybody can read it.",
            kind="text",
            most=_MOST_QUESTION,
        )
        form = Form(title=ASK_ABOUT, fields=(question,), seen="")
        context = ViewContext(location, kept=name)
        return views.form_view(
            form, context, callback=QUESTION_ID, submit="Ask", required={"question"}
        )

    async def _summarise(
        self,
        trigger: str,
        location: CommandLocation,
        message: Body,
        *,
        user: str,
        team: str,
        arrived: float,
    ) -> views.View:
        """Ask for a summary; return a notice if that was refused, or {}."""
        since = str(message["ts"])
        # For a message with a thread, summarise the thread; otherwise the channel.
        thread = location.thread if message.get("thread_ts") else ""
        later, more = await self._read(location.channel, thread, since)
        person = Person(user, user)
        first, *others = await context_messages(
            self._workspace, [message, *later], person, channel=location.channel
        )
        notice = await self._ask.ask(
            CommandQuestion(
                id=f"slack:{self._team}:cmd:{trigger}",
                user=user,
                name="",
                channel=location.channel,
                thread=location.thread,
                text=SUMMARY_QUESTION,
                summary=_ASKS + _IN_PART if more else _ASKS,
                quote=first,
                context=tuple(others),
                team=team,
            ),
            arrived=arrived,
        )
        return views.notice_view(notice, title=SUMMARISE) if notice else {}

    async def _read(self, channel: str, thread: str, since: str) -> Messages:
        """Return the messages after this one, oldest first. Raises SurfaceError.

        Of a channel with many, the newest: with `latest` Slack begins with them.
        """
        found, more = await self._workspace.read(
            channel=channel,
            thread=thread,
            within=self._workspace.limits.name_timeout * 2,
            oldest=since,
            latest=None if thread else f"{time.time():.6f}",
        )
        later = [one for one in found if string_field(one, "ts") > since]
        return sorted(later, key=lambda one: string_field(one, "ts")), more

    async def _in_time(self, work: Awaitable[_T], *, arrived: float) -> _T:
        return await in_time(work, by=arrived + self._workspace.limits.question_posted_within)

    def _sentence(self, error: ParleyError) -> str:
        if isinstance(error, NotInvited):
            return self._ask.not_a_member
        if scopes := ", ".join(filter(None, missing_scopes(error))):
            return f"I am not allowed to read this. An admin can give my app the scope {scopes}."
        return _SELDOM if isinstance(error, WriteDelayed) else excuse(error)
