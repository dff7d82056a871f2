"""The slash command /parley, and the buttons and forms of its answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from slack_sdk.webhook.async_client import AsyncWebhookClient

from adapters.slack.commands import views
from adapters.slack.commands.calls import CommandLocation, Permissions, in_time
from adapters.slack.commands.views import CommandAnswer, ViewContext
from adapters.slack.errors import translated
from adapters.slack.manifest import MODEL_ID, PERSONA_ID
from adapters.slack.reading import string_field
from adapters.slack.workspace import Workspace
from bot.commands.form import Field, Form, Part, form_named, scope_of
from bot.commands.handlers import (
    COMMANDS,
    DEFAULT,
    FORGETTING,
    Call,
    CommandHandlers,
    NotAThread,
    Scope,
    excuse,
)
from bot.errors import ParleyError, SurfaceError, WriteFailed
from bot.languages import say

log = logging.getLogger(__name__)

_FOLLOW_UP_SECONDS = 20 * 60  # Slack accepts answers to an interaction for half an hour
_CLOSED = "This form has expired. Please open it again."

Body = Mapping[str, Any]


class Parley:
    """Runs `/parley` and what follows from it.

    Each answer arrives within Slack's three seconds; slower ones get an apology. `on_change` is
    called with the person and the DM whose Home tab must be refreshed.
    """

    def __init__(
        self,
        workspace: Workspace,
        handlers: CommandHandlers,
        permissions: Permissions,
        *,
        on_change: Callable[[str, str], object],
    ) -> None:
        self._workspace = workspace
        self._client = workspace.client
        self._handlers = handlers
        self._permissions = permissions
        self._on_change = on_change
        self._team = workspace.identity.team
        self._within = workspace.limits.view_read_within

    async def on_command(self, command: Mapping[str, str]) -> CommandAnswer:
        """Run `/parley …`."""
        return await self.carry_out(
            command.get("text", ""),
            id_=f"slack:{self._team}:cmd:{command['trigger_id']}",
            location=CommandLocation(command["channel_id"]),
            user=command["user_id"],
            trigger=command["trigger_id"],
        )

    async def carry_out(
        self, text: str, *, id_: str, location: CommandLocation, user: str, trigger: str = ""
    ) -> CommandAnswer:
        """Run a command with its argument; without a `trigger` no form can be opened."""
        name, _, words = text.strip().partition(" ")
        work = self._do(name.lower() or "help", words.strip(), id_, location, user, trigger)
        try:
            return await in_time(work, self._within)
        except NotAThread as error:
            words = f"@{self._workspace.identity.name} /parley {name.lower()}"
            cure = say(
                "Slack has no commands in threads. Please write {words}.", words=f"`{words}`"
            )
            return CommandAnswer(f"{error.apology} {cure}")
        except ParleyError as error:
            log.info("Command in %s failed: %r", location.channel, error)
            return CommandAnswer(excuse(error))

    async def on_press(self, body: Body) -> bool:
        """Handle a press of a command's button; False for other buttons."""
        trigger, user, action = body["trigger_id"], body["user"]["id"], body["actions"][0]
        kind = action["action_id"].partition(":")[0]
        if kind == views.OPEN_FORM:
            work = self._open_form(body, action["value"], user=user, trigger=trigger)
        elif kind == views.FORGET_ME:
            work = self._forget(body, user=user, trigger=trigger)
        else:
            return False
        self._workspace.jobs.start(work)
        return True

    async def on_submit(self, body: Body) -> dict[str, Any]:
        """Store a submitted form; return the response action."""
        view, user = body["view"], body["user"]["id"]
        context = ViewContext.of(view)
        if context is None:
            return views.updated(say(_CLOSED))
        try:
            notice = await in_time(self._fill_in(view, context, user), self._within)
        except ParleyError as error:
            log.info("Form of %s refused: %r", user, error)
            # Below its field, or below the first one.
            field = getattr(error, "field", "") or views.first_field(view)
            return {"response_action": "errors", "errors": {field: excuse(error)}}
        if context.home:
            self._on_change(user, context.location.channel)
        return views.updated(notice)

    async def _do(
        self, name: str, words: str, id_: str, location: CommandLocation, user: str, trigger: str
    ) -> CommandAnswer:
        """Run one of COMMANDS."""
        call = self._permissions.call(id_, location, user)
        if name == "help":
            here = self._permissions.help_context(location)
            return CommandAnswer(await self._handlers.help(call, here))
        if name == "forget-me":
            return views.forget_question()
        if name not in COMMANDS:
            known = ", ".join(f"`{one}`" for one in COMMANDS)
            unknown = "I do not know this command. Try one of these after `/parley`: {known}."
            return CommandAnswer(say(unknown, known=known))
        if name not in ("stop", "usage", "me"):
            call = await self._permissions.call_with_rights(id_, location, user)
        if name in ("model", "persona") and not words:
            return await self._offer(name, call, location, trigger)
        if name == "settings":
            overview = await self._handlers.overview(call)
            return CommandAnswer(overview.text, views.overview_blocks(overview))
        return CommandAnswer(await self._handlers.run(name, call, words))

    async def _offer(
        self, name: str, call: Call, location: CommandLocation, trigger: str
    ) -> CommandAnswer:
        """Show what is chosen, and open a small form to choose a model or a persona."""
        present = CommandAnswer(await self._handlers.run(name, call))
        models = self._handlers.models()
        scopes = self._handlers.changeable(call)
        if not trigger or not scopes or (name == "model" and not models):
            return present
        chosen = list[Field]()
        if name == "model":
            options = (*models, ("", say("Default")))
            chosen.append(Field("model", say("Model"), "", "choice", options=options))
        else:
            if names := await self._handlers.personas(call):
                options = (*((it, it) for it in names), ("", say("None of these")))
                chosen.append(Field("named", say("Persona"), "", "choice", options=options))
            hint = say("For example: briefly, and in French. Leave it empty for the default.")
            asked = say("How should I answer?")
            chosen.append(Field("persona", asked, hint, "text", most=2000))
        offered = tuple((it, shown[:1].upper() + shown[1:]) for it, shown in scopes.items())
        # The nearest one is preselected.
        scope = Field(
            "scope", say("For"), say("Where it applies"), "choice", offered[0][0], offered
        )
        title = say("Choose a model") if name == "model" else say("Choose a persona")
        form = Form(title=title, fields=(*chosen, scope), seen="")
        required = {"model", "scope"}
        view = views.form_view(form, ViewContext(location), callback=name, required=required)
        await self._open(trigger, view)
        return present

    async def _open_form(self, body: Body, value: str, *, user: str, trigger: str) -> None:
        """Open a settings form, or a notice instead: the trigger expires in three seconds."""
        named, location = form_named(value), location_of(body)
        if named is None:
            log.warning("Cannot read a press of %s on a form's button", user)
            return
        scope, part = named
        is_home = string_field(body.get("view"), "type") == "home"
        try:
            loading = self._form(f"slack:{trigger}", location, user, named)
            form = await in_time(loading, self._within)
            context = ViewContext(location, scope=scope, part=part, seen=form.seen, home=is_home)
            view = views.form_view(form, context)
        except ParleyError as error:
            log.info("Cannot load a form in %s: %r", location.channel, error)
            view = views.notice_view(excuse(error))
        try:
            await self._open(trigger, view)
        except SurfaceError as error:
            log.warning("Cannot open a form in %s: %s", location.channel, error)

    async def _form(
        self, id_: str, location: CommandLocation, user: str, named: tuple[Scope, Part]
    ) -> Form:
        call = await self._permissions.call_with_rights(id_, location, user)
        return await self._handlers.form(call, *named)

    async def _fill_in(self, view: Body, context: ViewContext, user: str) -> str:
        id_ = f"slack:{self._team}:view:{string_field(view, 'id')}"
        call = await self._permissions.call_with_rights(id_, context.location, user)
        filled = views.values(view)
        name = string_field(view, "callback_id")
        if name in (MODEL_ID, PERSONA_ID):
            given = filled.get(name) or filled.get("named") or DEFAULT
            argument, scope = str(given), scope_of(str(filled["scope"]))
            return await self._handlers.run(name, call, argument, scope)
        if context.scope is None or context.part is None:
            return say(_CLOSED)
        return await self._handlers.fill_in(
            call, context.scope, context.part, filled, seen=context.seen
        )

    async def _forget(self, body: Body, *, user: str, trigger: str) -> None:
        """Erase a person, and replace the question by the result."""
        call = self._permissions.call(f"slack:{trigger}", location_of(body), user)
        try:
            notice = await self._handlers.forget_me(call)
            if notice == say(FORGETTING):
                await self._report_erasure(body, notice)
                async with asyncio.timeout(_FOLLOW_UP_SECONDS):
                    notice = await self._handlers.forgotten(call)
        except TimeoutError:
            return
        except ParleyError as error:
            log.info("Cannot erase %s: %r", user, error)
            notice = excuse(error)
        await self._report_erasure(body, notice)

    async def _report_erasure(self, body: Body, notice: str) -> None:
        # A response_url needs no membership, and replaces the ephemeral message.
        session, url = self._client.session, string_field(body, "response_url")
        hook = AsyncWebhookClient(url, session=session, proxy=self._client.proxy)
        try:
            async with translated():
                response = await hook.send_dict(
                    {**CommandAnswer(notice).message(), "replace_original": True}
                )
                if response.status_code != 200:
                    raise WriteFailed(f"Slack answered HTTP {response.status_code}")
        except SurfaceError as error:
            log.warning("Cannot answer a press: %s", error)

    async def _open(self, trigger: str, view: views.View) -> None:
        async with translated(self._within):
            await self._client.views_open(trigger_id=trigger, view=view)


def location_of(body: Body) -> CommandLocation:
    """Return the location of a pressed button; on the Home tab the DM."""
    container = body["container"]
    if channel := container.get("channel_id"):
        return CommandLocation(channel, string_field(container, "thread_ts"))
    context = ViewContext.of(body["view"])
    return context.location if context else CommandLocation("")
