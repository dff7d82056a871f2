"""The form in which a person answers a question of a tool's server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from adapters.slack.commands import views
from adapters.slack.commands.calls import CommandLocation, in_time
from adapters.slack.commands.views import ViewContext
from adapters.slack.errors import translated
from adapters.slack.manifest import ANSWER_ID
from adapters.slack.workspace import Workspace
from bot.commands.form import answer_form
from bot.commands.handlers import excuse
from bot.errors import ParleyError, SurfaceError
from bot.intake.answers import Answers
from bot.languages import say

log = logging.getLogger(__name__)

_GOES_ON = "Thank you, I go on."


class AnswerForms:
    """Opens these forms, and takes what was written."""

    def __init__(self, workspace: Workspace, answers: Answers) -> None:
        self._workspace = workspace
        self._answers = answers

    async def open(
        self, turn_id: str, question_id: str, *, user: str, channel: str, trigger: str
    ) -> None:
        """Open the form, for the asker; the trigger expires in three seconds.

        Raises Refused and StoreUnavailable.
        """
        limits, at = self._workspace.limits, self._workspace.identity.key(channel)
        asking = self._answers.question(turn_id, question_id, person_id=user, at=at)
        form = answer_form(await in_time(asking, limits.view_read_within))
        context = ViewContext(CommandLocation(channel), kept=f"{question_id}:{turn_id}")
        view = views.form_view(form, context, callback=ANSWER_ID, submit=say("Answer"))
        try:
            async with translated(limits.command_answered_within):
                await self._workspace.client.views_open(trigger_id=trigger, view=view)
        except SurfaceError as error:
            log.warning("Cannot open a form in %s: %s", channel, error)

    async def on_submit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store what was written; return the response action."""
        view, user = body["view"], body["user"]["id"]
        context = ViewContext.of(view)
        channel = context.location.channel if context else ""
        question_id, _, turn_id = (context.kept if context else "").partition(":")
        filling_in = self._answers.fill_in(
            turn_id,
            question_id,
            views.values(view),
            person_id=user,
            at=self._workspace.identity.key(channel),
        )
        try:
            await in_time(filling_in, self._workspace.limits.command_answered_within)
        except ParleyError as error:
            log.info("Form of %s refused: %s", user, type(error).__name__)
            field = getattr(error, "field", "") or views.first_field(view)
            return {"response_action": "errors", "errors": {field: excuse(error)}}
        return views.updated(say(_GOES_ON))
