"""The entries in the menu of a message: a question about it, and a summary from there on."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.slack.commands import views
from adapters.slack.commands.ask_command import AskCommand, CommandQuestion
from adapters.slack.commands.calls import CommandLocation, in_time
from adapters.slack.commands.views import ViewContext
from adapters.slack.context import context_messages
from adapters.slack.errors import NotInvited, missing_scopes, translated
from adapters.slack.manifest import ASK_ABOUT_ID, QUESTION_ID
from adapters.slack.reading import string_field
from adapters.slack.workspace import Workspace
from bot.commands.form import Field, Form
from bot.commands.handlers import ASK_ABOUT, SUMMARISE, SUMMARY_QUESTION, excuse
from bot.domain import Person
from bot.errors import ParleyError, SurfaceError, WriteDelayed
from bot.intake.intake import Intake
from bot.languages import later, say

log = logging.getLogger(__name__)

_GONE = "This form has expired. Please choose the message again."
_ASKED = "I have posted your question in the thread of this message, and answer it there."
_ASKS = later("{name} asks for a summary from here")
_ASKS_IN_PART = later("{name} asks for a summary from here, of which I can read only a part")
_SELDOM = "Slack lets me read only now and then. Please try again in a minute."
_MOST_QUESTION = 3000  # characters, as of any input

Body = Mapping[str, Any]


class Shortcuts:
    """Handles message shortcuts. Answers are posted publicly in the message's thread."""

    def __init__(self, workspace: Workspace, intake: Intake, ask: AskCommand) -> None:
        self._workspace = workspace
        self._intake = intake
        self._ask = ask
        self._team = workspace.identity.team

    async def on_shortcut(self, body: Body) -> None:
        """Open a modal for a question about a message, or ask for a summary from there on."""
        message, channel, trigger = body["message"], body["channel"]["id"], body["trigger_id"]
        asked = CommandQuestion(
            id=f"slack:{self._team}:cmd:{trigger}",
            user=body["user"]["id"],
            channel=channel,
            thread=message.get("thread_ts") or message["ts"],
            team=string_field(body["user"], "team_id"),
        )
        limits = self._workspace.limits
        carry_out, within = self._summarise, limits.command_answered_within
        if body["callback_id"] == ASK_ABOUT_ID:
            carry_out, within = self._question, limits.view_read_within
        try:
            view = await in_time(carry_out(asked, message), within)
        except ParleyError as error:
            log.info("Shortcut in %s failed: %r", channel, error)
            view = views.notice_view(self._sentence(error))
        try:
            async with translated(limits.command_answered_within):
                if view:
                    await self._workspace.client.views_open(trigger_id=trigger, view=view)
        except SurfaceError as error:
            log.warning("Cannot open a view in %s: %s", channel, error)

    async def on_submit(self, body: Body) -> dict[str, Any]:
        """Ask the submitted question about a message."""
        view, person = body["view"], body["user"]
        context = ViewContext.of(view)
        if context is None:
            return views.updated(say(_GONE))
        asked = CommandQuestion(
            id=f"slack:{self._team}:view:{view['id']}",
            user=person["id"],
            name=string_field(person, "name"),
            channel=context.location.channel,
            thread=context.location.thread,
            text=str(views.values(view).get("question", "")),
            team=string_field(person, "team_id"),
        )
        within = self._workspace.limits.command_answered_within
        try:
            return views.updated(await in_time(self._ask_about(asked, context.kept), within))
        except ParleyError as error:
            return views.updated(excuse(error))

    async def _ask_about(self, asked: CommandQuestion, kept: str) -> str:
        about = await self._intake.history.kept_message(kept)
        if about is None:
            return say(_GONE)
        return await self._ask.ask(replace(asked, quote=about)) or say(_ASKED)

    async def _check_access(self, asked: CommandQuestion) -> None:
        rules = self._intake.access.rules
        asker = await self._workspace.asker(rules, asked.channel, asked.user, team=asked.team)
        key = self._workspace.identity.key(asked.channel, asked.thread)
        await self._intake.access.check(key, Person(asked.user, asked.user, self._team), asker)

    async def _question(self, asked: CommandQuestion, message: Body) -> views.View:
        """Store the message, which may be too long for the view, and return the form."""
        await self._check_access(asked)
        person = Person(asked.user, asked.user)
        [about] = await context_messages(self._workspace, [message], person, channel=asked.channel)
        await self._intake.history.keep_message(asked.id, about)
        hint = say("I answer in the thread of the message, where everybody can read it.")
        field = Field(
            "question", say("What do you want to know?"), hint, "text", most=_MOST_QUESTION
        )
        form = Form(title=say(ASK_ABOUT), fields=(field,), seen="")
        context = ViewContext(CommandLocation(asked.channel, asked.thread), kept=asked.id)
        required = {"question"}
        return views.form_view(
            form, context, callback=QUESTION_ID, submit=say("Ask"), required=required
        )

    async def _summarise(self, asked: CommandQuestion, message: Body) -> views.View:
        """Ask for a summary; return a notice if that was refused, or {}."""
        await self._check_access(asked)
        # For a message with a thread, summarise the thread; otherwise the channel: of many messages
        # the newest, because with `latest` Slack begins with them.
        thread, since = asked.thread if message.get("thread_ts") else "", str(message["ts"])
        found, more = await self._workspace.read(
            channel=asked.channel,
            thread=thread,
            within=self._workspace.limits.lookup_timeout,
            oldest=since,
            latest=None if thread else f"{time.time():.6f}",
        )
        by_time = sorted(found, key=lambda one: str(one["ts"]))
        later = [one for one in by_time if str(one["ts"]) > since]
        person = Person(asked.user, asked.user)
        first, *others = await context_messages(
            self._workspace, [message, *later], person, channel=asked.channel
        )
        summary = _ASKS_IN_PART if more else _ASKS
        question = replace(
            asked, text=SUMMARY_QUESTION, summary=summary, quote=first, context=tuple(others)
        )
        notice = await self._ask.ask(question)
        return views.notice_view(notice, title=say(SUMMARISE)) if notice else {}

    def _sentence(self, error: ParleyError) -> str:
        if isinstance(error, NotInvited):
            return self._ask.not_a_member
        if scopes := ", ".join(filter(None, missing_scopes(error))):
            refused = "I am not allowed to read this. An admin can give my app the scope {scopes}."
            return say(refused, scopes=scopes)
        return say(_SELDOM) if isinstance(error, WriteDelayed) else excuse(error)
