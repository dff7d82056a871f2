"""The platforms of a process: which there are, and their replies and events."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from bot.domain import Finding
from bot.errors import CannotStart, SurfaceError, Unreachable
from bot.platform_spec import Connected, PlatformSpec, Process, Service
from bot.proxy import EVERYWHERE, warn_if_readable
from config.settings import Settings

if TYPE_CHECKING:
    from aiohttp import web

    from bot.platform_spec import Handler
    from bot.ports import Platform, Untitled

log = logging.getLogger(__name__)

TELL_SECONDS = 45.0  # for all admins: a notice is claimed for a minute (quota.lua)
RETRY_SECONDS = 10.0  # between two attempts to reach a platform while another one runs
WORKER = "worker"  # the role that is no platform's
ENTRY_POINTS = "parley.platforms"  # under which installed packages name theirs


@cache
def all_specs() -> tuple[PlatformSpec, ...]:
    """Return the platforms: those of `adapters`, the terminal last, and of installed packages.

    Raises CannotStart if one of those is no platform, or has the name of another.
    """
    built_in = [_loaded(one) for one in _built_in()]
    built_in.sort(key=lambda spec: (spec.local, spec.in_terminal, spec.name))
    installed = [_loaded(one) for one in entry_points(group=ENTRY_POINTS)]
    found: dict[str, PlatformSpec] = {}
    for spec in (*built_in, *installed):
        if spec.name in (*found, WORKER):
            raise CannotStart(f"{spec.title} is no platform with a name of its own: {spec.name}")
        found[spec.name] = spec
    return tuple(found.values())


def _built_in() -> Iterator[EntryPoint]:
    """Yield the packages of `adapters` that have a spec."""
    for package in files("adapters").iterdir():
        if package.is_dir() and package.joinpath("spec.py").is_file():
            name = package.name
            yield EntryPoint(name, f"adapters.{name}.spec:PLATFORM", ENTRY_POINTS)


def _loaded(one: EntryPoint) -> PlatformSpec:
    try:
        spec = one.load()
    except (ImportError, AttributeError) as error:
        raise CannotStart(f"the platform {one.value} cannot be loaded: {error}") from error
    if not isinstance(spec, PlatformSpec):
        raise CannotStart(f"{one.value} is no platform")
    return spec


def load_settings(environment: Mapping[str, str], env_file: Path) -> Settings:
    """Read the settings of all platforms. Raises SettingsError and CannotStart."""
    return Settings.load(environment, env_file, all_specs())


def own_names() -> dict[str, tuple[str, ...]]:
    """Return by platform which parts of names are one person's alone."""
    return {spec.name: spec.own_names for spec in all_specs()}


def removing_platforms() -> frozenset[str]:
    """Return the platforms that remove their answers to a person who is forgotten."""
    return frozenset(spec.name for spec in all_specs() if spec.removes_answers)


def remote_specs(settings: Settings) -> list[PlatformSpec]:
    """Return the platforms elsewhere for which there are credentials."""
    specs = (spec for spec in all_specs() if not spec.local)
    return [spec for spec in specs if spec.own(settings).is_configured]


def _of(roles: frozenset[str]) -> Iterator[PlatformSpec]:
    return (spec for spec in all_specs() if spec.name in roles)


def uses_terminal(roles: frozenset[str]) -> bool:
    """Whether one of the roles talks with the person at the terminal of this process."""
    return any(spec.in_terminal for spec in _of(roles))


@dataclass(slots=True)
class Platforms:
    """The platforms of this process; `off` are those that should run but do not, with the reasons.

    The listener of an unreachable platform retries it and adds it to `platforms` when it is up.
    """

    _process: Process
    _stack: AsyncExitStack
    _retry_seconds: float
    _fatal: int  # this many failed platforms end the process
    platforms: dict[str, Platform] = field(default_factory=dict)
    listeners: dict[str, Callable[[], Service]] = field(default_factory=dict)
    posts: dict[str, Handler] = field(default_factory=dict)
    gets: dict[str, Handler] = field(default_factory=dict)
    # The seconds without an open connection, by platform.
    downtimes: dict[str, Callable[[], float]] = field(default_factory=dict)
    untitled: dict[str, Untitled] = field(default_factory=dict)
    off: dict[str, CannotStart] = field(default_factory=dict)
    _connected: dict[str, Connected] = field(default_factory=dict)

    async def connect(self, spec: PlatformSpec) -> Connected:
        """Connect a platform, if it is not; raises CannotStart."""
        if spec.name not in self._connected:
            connecting = spec.connect(self._process)
            self._connected[spec.name] = await self._stack.enter_async_context(connecting)
        connected = self._connected[spec.name]
        self.platforms[spec.name] = connected.platform
        if connected.untitled:
            self.untitled[spec.name] = connected.untitled
        if self.off.pop(spec.name, None):
            log.info("%s can be reached again", spec.title)
        return connected

    async def listen(self, spec: PlatformSpec) -> None:
        """Listen until cancelled, or stay connected if that is no role of this process.

        Raises CannotStart if too many platforms are off.
        """
        while True:
            error = self.off.get(spec.name)
            if error:
                if not isinstance(error, Unreachable):
                    await asyncio.Event().wait()
                await asyncio.sleep(self._retry_seconds)
            try:
                connected, error = await self.connect(spec), None
                if connected.listen and spec.name in self._process.roles:
                    await connected.listen()
                else:
                    await asyncio.Event().wait()
            except CannotStart as failure:
                self.off[spec.name] = failure
                self.end_if_fatal()
                if str(failure) != str(error):
                    self.log_off(spec)

    async def handle(self, spec: PlatformSpec, request: web.Request) -> web.StreamResponse:
        """Answer a request; while the platform is off a post gets 503, and is sent again."""
        from aiohttp import web

        connected = self._connected.get(spec.name)
        if connected is None or connected.handler is None:
            return web.Response(status=503)
        return await connected.handler(request)

    async def tell(self, people: Sequence[str], text: str) -> bool:
        """Send a direct message to people, by their ids; False if none of some can be reached.

        Who is not told within TELL_SECONDS cannot be.
        """
        waits = told = False
        ends_at = asyncio.get_running_loop().time() + TELL_SECONDS
        for spec in all_specs():
            connected, own = self._connected.get(spec.name), spec.own_ids(people)
            waits |= bool(own) and spec.name in self.off
            if connected and connected.tell:
                for person in own:
                    try:
                        async with asyncio.timeout_at(ends_at):
                            await connected.tell(person, text)
                        told = True
                    except (SurfaceError, TimeoutError) as error:
                        log.warning("Admin %s cannot be told: %s", person, error or "too slow")
                        waits = True
        return told or not waits

    def downtime(self, spec: PlatformSpec) -> float:
        """Return the seconds for which no events could arrive: infinity if the platform is off."""
        connected = self._connected.get(spec.name)
        if connected is None or connected.downtime is None or spec.name in self.off:
            return math.inf
        return connected.downtime()

    def end_if_fatal(self) -> None:
        """Raise CannotStart, with a line for each platform, if too many are off."""
        if len(self.off) >= self._fatal:
            raise CannotStart("\n".join(map(str, self.off.values())))

    def log_off(self, spec: PlatformSpec) -> None:
        """Log why a platform is off."""
        retried = " (it is retried)" if isinstance(self.off[spec.name], Unreachable) else ""
        log.error("%s is off%s: %s", spec.title, retried, self.off[spec.name])


async def open_platforms(
    process: Process, stack: AsyncExitStack, *, answers: bool, retry_seconds: float = RETRY_SECONDS
) -> Platforms:
    """Connect the platforms that the roles need, and import no others.

    If this process `answers`, these are also all local ones and those with credentials. Raises
    CannotStart with a line for each platform that failed, if all failed or if one did and all are
    needed; so do the listeners.
    """
    wanted = process.roles
    if WORKER in wanted:
        wanted |= {spec.name for spec in remote_specs(process.settings)}
    remote = [spec for spec in _of(wanted) if not spec.local]
    fatal = 1 if process.need_all else max(len(remote), 1)
    found = Platforms(process, stack, retry_seconds, fatal)
    for spec in remote:
        try:
            await found.connect(spec)
        except CannotStart as error:
            found.off[spec.name] = error
        if spec.name in process.roles or spec.name in found.off:
            found.listeners[spec.name] = partial(found.listen, spec)
        if spec.name in process.roles:
            found.downtimes[spec.name] = partial(found.downtime, spec)
            if path := spec.own(process.settings).post_path:
                found.posts[path] = partial(found.handle, spec)
            pages = spec.own(process.settings).get_paths
            found.gets |= dict.fromkeys(pages, partial(found.handle, spec))
    found.end_if_fatal()
    for spec in remote:
        if spec.name in found.off:
            found.log_off(spec)
    for spec in all_specs():
        if spec.local and (answers or spec.name in process.roles):
            connected = await found.connect(spec)
            if connected.listen:
                found.listeners[spec.name] = connected.listen
            if connected.downtime:
                found.downtimes[spec.name] = connected.downtime
    return found


def servers(settings: Settings, roles: frozenset[str]) -> dict[str, tuple[str, int]]:
    """Return where a process listens, by the variable of the port; a terminal alone has no PORT."""
    found: dict[str, tuple[str, int]] = {}
    for spec in _of(roles):
        found |= spec.own(settings).ports()
    if not uses_terminal(roles) or any(not spec.local for spec in _of(roles)):
        found["PORT"] = (settings.host, settings.port)
        if settings.metrics_port is not None:
            found["METRICS_PORT"] = (settings.metrics_host, settings.metrics_port)
    return found


def check_settings(settings: Settings, roles: frozenset[str]) -> None:
    """Raise CannotStart if the settings lack what a role needs; warn of unencrypted tokens."""
    mistakes = []
    for spec in _of(roles):
        if not spec.local and not spec.own(settings).is_configured:
            mistakes.append(f"the role {spec.name} needs {spec.credential}")
        mistakes += spec.own(settings).lacks()
    if WORKER in roles and remote_specs(settings) and not settings.names_model:
        mistakes.append(
            "there is no model: set HF_TOKEN, MODEL_URL, LOCAL_MODEL_PATH or TRANSFORMERS_MODEL, "
            "or MODEL_ID=demo for the small embedded one"
        )
    for (one, (here, port)), (other, (there, number)) in combinations(
        servers(settings, roles).items(), 2
    ):
        if port and port == number and (here == there or {here, there} & set(EVERYWHERE)):
            mistakes.append(f"{one} and {other} are both {port}: set one to another number")
    if mistakes:
        raise CannotStart("\n".join(mistakes))
    for finding in closed_or_open(settings):
        log.warning("%s: %s", finding.text, finding.cure)
    for spec in all_specs():
        own = spec.own(settings)
        for token, address in spec.tokens:
            if getattr(own, token):
                url = getattr(own, address)
                warn_if_readable(own.variable(token), by=own.variable(address), url=url)


def closed_or_open(settings: Settings) -> Iterator[Finding]:
    """Yield each list and page that admits nobody, and a page that sets no limit."""
    for spec in all_specs():
        yield from spec.findings(settings)
    people = (*settings.allowed_people, *settings.admins)
    for spec in remote_specs(settings):
        by_role = "role" in spec.ids and settings.allowed_roles
        if (settings.allowed_people or settings.allowed_roles) and not (
            by_role or spec.own_ids(people)
        ):
            text = f"ALLOWED_PEOPLE names nobody of {spec.title}: nobody is answered there"
            if settings.allowed_roles:
                text = f"ALLOWED_ROLES lets nobody in on {spec.title}, which has no roles"
            roles = " or ALLOWED_ROLES" if "role" in spec.ids else ""
            cure = f"add people of {spec.title} to ALLOWED_PEOPLE{roles}"
            yield Finding("Settings", text, cure, wrong=True)
        form = spec.ids.get("server")
        for name, ids, one in (
            ("ALLOWED_SERVERS", settings.allowed_servers, (form and form.noun) or "server"),
            ("ALLOWED_CHANNELS", settings.allowed_channels, "channel"),
        ):
            if ids and not spec.own_ids(ids):
                text = (
                    f"{name} names no {one} of {spec.title}: nobody is answered in channels there"
                )
                yield Finding("Settings", text, f"add the id of a {one} of {spec.title} to {name}")
