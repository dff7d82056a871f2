"""A Slack whose commands go to a desk of the test's own, over HTTP and the real slack-bolt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adapters.slack import SlackPlatform
from adapters.slack.commands.entrance import Commands
from adapters.slack.inbound.app import Body, dispatcher
from adapters.slack.inbound.events import EventHandler
from adapters.slack.inbound.http import signed_handler
from adapters.slack.limits import Limits
from bot.errors import Refused
from bot.turns.desk import Call, Desk, Field, Form, Overview, Part, Scope
from bot.turns.intake import Intake
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeIntake
from tests.support.slack_platform import LIMITS, joined, serving


class TooHot(Refused):
    """A field of a form that cannot be stored."""

    apology = "The temperature is from 0 to 2."
    field = "temperature"


@dataclass
class FakeDesk(Desk):
    """Keeps what it was called with; the form that it gives has one field of each kind.

    `error` is raised instead, as long as it stands.
    """

    intake: Intake = field(default_factory=FakeIntake)
    calls: list[tuple[str, Call, tuple[object, ...]]] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    people: tuple[str, ...] = ()
    offered: Sequence[tuple[str, str]] = (("small", "Small"), ("large", "Large"))
    error: Exception | None = None

    @property
    def last(self) -> Call:
        return self.calls[-1][1]

    async def reset(self, call: Call) -> str:
        return self._said("reset", call)

    async def stop(self, call: Call) -> str:
        return self._said("stop", call)

    async def quiet(self, call: Call) -> str:
        return self._said("quiet", call)

    async def follow(self, call: Call) -> str:
        return self._said("follow", call)

    async def usage(self, call: Call) -> str:
        return self._said("usage", call)

    async def forget_me(self, call: Call) -> str:
        return self._said("forget-me", call)

    async def choose_model(self, call: Call, name: str, scope: Scope | None = None) -> str:
        return self._said("model", call, name, scope)

    async def choose_persona(self, call: Call, text: str, scope: Scope | None = None) -> str:
        return self._said("persona", call, text, scope)

    def models(self, typed: str = "") -> list[tuple[str, str]]:
        return [one for one in self.offered if typed in one[0]]

    async def overview(self, call: Call) -> Overview:
        self._said("overview", call)
        allowed = call.manages_channel or call.own_thread
        forms: list[tuple[Scope, Part, str]] = [(next(iter(call.scopes)), "answers", "Answers…")]
        if call.manages_server:
            forms.append(("server", "access", "Who may ask…"))
        return Overview(text="Answers come from Small.", forms=forms if allowed else ())

    async def form(self, call: Call, scope: Scope, part: Part) -> Form:
        self._said("form", call, scope, part)
        people = "people" if part == "access" else "persona"
        return Form(
            title=f"How I answer in {call.scopes[scope]}, for all",
            seen="version 7",
            fields=(
                Field(
                    name="model",
                    label="Model",
                    hint="Which model answers.",
                    kind="choice",
                    value=self.chosen.get("model", ""),
                    options=(("", "As elsewhere"), *self.offered),
                ),
                Field(
                    name="temperature",
                    label="Temperature",
                    hint="",
                    kind="line",
                    value=self.chosen.get("temperature", ""),
                ),
                Field(
                    name=people,
                    label="More",
                    hint="",
                    kind="people" if people == "people" else "text",
                    value=self.people if people == "people" else "",
                    most=5 if people == "people" else 2000,
                ),
                Field(name="roles", label="Roles", hint="", kind="roles"),
            ),
        )

    async def fill_in(
        self,
        call: Call,
        scope: Scope,
        part: Part,
        values: Mapping[str, str | Sequence[str]],
        *,
        seen: str,
    ) -> str:
        said = self._said("fill_in", call, scope, part, dict(values), seen)
        if values.get("temperature") == "hot":
            raise TooHot
        return said

    def _said(self, name: str, call: Call, *rest: object) -> str:
        self.calls.append((name, call, rest))
        if self.error:
            raise self.error
        return f"Done: {name}."


@asynccontextmanager
async def commanding(
    slack: SlackEmulator,
    desk: Desk,
    *,
    intake: Intake | None = None,
    limits: Limits = LIMITS,
    prompts: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[SlackPlatform]:
    """Receive all that people do, over HTTP; questions go to the intake."""
    intake = intake or FakeIntake()
    async with joined(slack, limits=limits) as platform:
        commands = Commands(platform.workspace, intake, desk=desk, prompts=prompts)
        events = EventHandler(
            platform.workspace,
            intake,
            on_home=commands.on_home,
            on_words=commands.on_words,
        )

        async def on_press(body: Body) -> None:
            if not await commands.on_press(body):
                await events.on_press(body)

        dispatch = dispatcher(
            platform.workspace,
            on_event=events.on_event,
            on_press=on_press,
            on_command=commands.on_command,
            on_shortcut=commands.on_shortcut,
            on_submit=commands.on_submit,
        )
        handler = signed_handler(dispatch, signing_secret=slack.signing_secret, limits=limits)
        async with serving(handler) as url:
            await slack.verify(url)
            yield platform
