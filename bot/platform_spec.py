"""What an adapter tells about its platform: one value, from which a process is made."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from bot.domain import Finding
from config.settings import PlatformSettings, Settings
from config.variables import IdForm

if TYPE_CHECKING:  # every command reads the specs, also those that need nothing of these
    from aiohttp import web

    from bot.intake.intake import Intake
    from bot.ports import Platform, Untitled
    from bot.reply.edit_budget import EditBudgets
    from bot.store import Store

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Service = Coroutine[Any, Any, object]


@dataclass(frozen=True, slots=True)
class Process:
    """What a process hands to its platforms.

    `model` is the name of what answers, and `answers_from` tells more of it; "" if only another
    process knows it. `patience` is for how many seconds an answer may be silent or grow. With
    `need_all` the process ends if a part of it cannot start. `trust` is called with each request
    to a page and its person's id. The terminal shows the `notices`.
    """

    settings: Settings
    roles: frozenset[str]
    store: Store
    budgets: EditBudgets
    intake: Intake
    # Serves an application on a `host` and a `port`; yields its address. Entering raises OSError.
    serve_pages: Callable[..., AbstractAsyncContextManager[str]]
    trust: Callable[[web.Request, str], None]
    model: str = ""
    answers_from: str = ""
    is_demo: bool = False
    patience: float = 660.0
    need_all: bool = False
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Connected:
    """A connected platform.

    `listen` hands events to the intake until it is cancelled, and `downtime` returns for how many
    seconds none could arrive. Both are None if people are not heard here. `handler` answers the
    posts to `PlatformSettings.post_path` and the requests for its `get_paths`. `tell` sends a
    person a direct message, by their id and its text, and raises SurfaceError; None if the platform
    has none. `untitled` are conversations that want a title of the model.
    """

    platform: Platform
    listen: Callable[[], Service] | None = None
    downtime: Callable[[], float] | None = None
    handler: Handler | None = None
    tell: Callable[[str, str], Awaitable[None]] | None = None
    untitled: Untitled | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One variable of `init`: its question, the text before it, and the check of the answers.

    It is asked only if each of `needs`, variables before it, has a value, or none if it begins
    with "!". A question for ids of a `kind` is asked only if a configured platform has such ids, or
    if some are set. In `before`, `{bot}` is the command that runs the bot, and `{ids}` tells how
    ids look there. `value_of` makes the value of what a person answers, with the values of all
    variables so far; it raises CannotStart.
    """

    variable: str
    text: str
    secret: bool = False
    before: str = ""
    needs: tuple[str, ...] = ()
    kind: str = ""  # of `PlatformSpec.ids`
    check: Callable[[Settings], AsyncIterator[Finding]] | None = None
    value_of: Callable[[str, Mapping[str, str]], Awaitable[str]] | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the terminal that only this platform needs: `python -m bot NAME`."""

    name: str
    help: str
    run: Callable[[Settings, Namespace, TextIO], Coroutine[Any, Any, int | None]]
    add_arguments: Callable[[ArgumentParser], object] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSpec:
    """One platform. Nothing of it is imported before `connect`, `examine` or a command is called.

    A `local` platform is served by the process itself: every worker writes its replies, and its
    role lets people in. Any other one runs where there are credentials for it.
    """

    title: str  # for people
    where: str  # for a model: "You talk with Ana on Discord."
    settings: type[PlatformSettings]
    # Raises CannotStart, and Unreachable if it may work later.
    connect: Callable[[Process], AbstractAsyncContextManager[Connected]]
    # What its ids look like, by kind: server, channel, person, role; and the same in a sentence.
    ids: Mapping[str, IdForm] = field(default_factory=dict)
    ids_help: str = ""
    # Parts of names, of threads, turns and keys, that are one person's alone: each part of a name
    # stands between colons, and `{id}` is the id of the person as a `ThreadKey` has it. Such keys
    # are dropped, and open pages of such threads told so, when the person is forgotten.
    own_names: tuple[str, ...] = ()
    # Whether it removes its answers to a person who was forgotten. Then the id and the time (ms
    # since the epoch) are added to the set `removals:<platform>`, which keeps them until it has.
    removes_answers: bool = False
    # Patterns of the keys that a restored store must not have: of a connection, which it would
    # continue, and hear again what was answered since, and of what may have been revoked since.
    sessions: tuple[str, ...] = ()
    local: bool = False
    # It brings its own worker, and the log does not disturb it.
    in_terminal: bool = False
    # Whether its role is taken if nothing is configured.
    served_alone: Callable[[], bool] = lambda: False
    credential: str = ""  # the variable that makes the bot run there
    tokens: tuple[tuple[str, str], ...] = ()  # settings, each with that of the address it goes to
    loggers: tuple[str, ...] = ()  # of its libraries
    # Settings that let nobody in, or everybody.
    findings: Callable[[Settings], Iterable[Finding]] = lambda _: ()
    # What works there and what does not, and how to begin.
    examine: Callable[[Settings], AsyncIterator[Finding]] | None = None
    welcome: Callable[[Settings], AsyncIterator[Finding]] | None = None
    questions: tuple[Question, ...] = ()
    access_questions: tuple[Question, ...] = ()  # asked after those of servers and roles
    commands: tuple[Command, ...] = ()

    @property
    def name(self) -> str:
        """The name in thread keys, roles and metrics, and before the variables."""
        return self.settings.name

    def own(self, settings: Settings) -> Any:
        """Return the platform's own settings."""
        return self.settings.of(settings)

    def own_ids(self, ids: Iterable[str]) -> list[str]:
        """Return those ids that look like this platform's, of any kind."""
        return [one for one in ids if any(form.fits(one) for form in self.ids.values())]
