"""Checks a set-up, part by part, and reports errors with their cures."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import aiohttp

from bot import __version__
from bot.app.assistant import open_assistant
from bot.app.platforms import (
    WORKER,
    all_specs,
    check_settings,
    closed_or_open,
    remote_specs,
    servers,
)
from bot.app.service import choose_roles
from bot.domain import Finding, Message, Retrying, Start
from bot.errors import ModelError, ParleyError
from bot.model import huggingface
from bot.model.client import ROUTER
from bot.model.server import ModelServer
from bot.model.transport import connect as connect_model
from bot.store import connect, examine_server
from config.settings import Settings

PART_SECONDS = 45.0  # limit of one check; loading a local model takes long
_PRIVATE = 0o077
_PROMPT = [Message("user", "Say yes.")]

Part = Callable[[], AsyncIterator[Finding]]


async def check(settings: Settings, output: TextIO, *, env_file: Path) -> bool:
    """Print a line for each part, and return whether all would work.

    Only an expiring key is written to the store, and one short question is asked.
    """
    output.write(f"Parley {__version__}\n")
    parts: list[tuple[str, Part]] = [
        ("Settings", lambda: examine_settings(settings)),
        ("Files", lambda: _examine_files(settings, env_file)),
        ("Store", lambda: examine_store(settings)),
        ("Model", lambda: examine_model(settings)),
        ("Tools", lambda: examine_tools(settings)),
        *((it.title, partial(it.examine, settings)) for it in remote_specs(settings) if it.examine),
        ("Ports", lambda: _ports(settings)),
    ]
    works = True
    # At the same time, and printed in this order.
    running = [asyncio.create_task(examined(name, part)) for name, part in parts]
    for examining in running:
        for finding in await examining:
            works = works and not finding.wrong
            output.write(f"{line(finding)}\n")
            output.flush()
    output.write("Everything works.\n" if works else "Not everything works: see above.\n")
    return works


def line(finding: Finding) -> str:
    """Format a finding for the terminal."""
    sign = "✗" if finding.wrong else "!" if finding.cure else "✓"
    return f"{sign} {finding.subject}: {finding.text}" + (
        f"\n    → {finding.cure}" if finding.cure else ""
    )


async def examined(name: str, part: Part) -> list[Finding]:
    """Return the findings of a part; its own error is one more finding."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(PART_SECONDS):
            async for finding in part():
                found.append(finding)
    except TimeoutError:
        found.append(Finding(name, f"No answer within {PART_SECONDS:.0f} s", wrong=True))
    except (ParleyError, aiohttp.ClientError, OSError) as error:
        text = str(error) or type(error).__name__
        found += [Finding(name, each, wrong=True) for each in text.splitlines()]
    return found


async def examine_settings(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the roles of the bot, and who may use it. Raises CannotStart."""
    roles = _roles(settings)
    check_settings(settings, roles)
    yield Finding("Settings", f"The bot would run as {', '.join(sorted(roles))}")
    names = ("allowed_servers", "allowed_channels", "allowed_people", "allowed_roles")
    chosen = [name.upper() for name in names if getattr(settings, name)]
    if chosen and remote_specs(settings):
        yield Finding("Settings", f"Who may use the bot: {', '.join(chosen)}")
    elif remote_specs(settings):
        text = "Anybody who can write to the bot may use it, and spends what the model costs"
        cure = "set ALLOWED_SERVERS, ALLOWED_CHANNELS, ALLOWED_ROLES or ALLOWED_PEOPLE, or quotas"
        yield Finding("Settings", text, cure)
    for finding in closed_or_open(settings):
        yield finding


def _roles(settings: Settings) -> frozenset[str]:
    # Without a platform, as if run in a terminal.
    local = (spec.name for spec in all_specs() if spec.local)
    return choose_roles((), settings) if remote_specs(settings) else frozenset((*local, WORKER))


async def _examine_files(settings: Settings, env_file: Path) -> AsyncIterator[Finding]:
    for finding in _files(settings, env_file):
        yield finding


def _files(settings: Settings, env_file: Path) -> Iterator[Finding]:
    if not env_file.is_file():
        text = f"There is no file {env_file}: all settings come from the environment"
        yield Finding("Files", text)
    elif os.name == "posix" and stat.S_IMODE(env_file.stat().st_mode) & _PRIVATE:
        text = f"Others on this machine can read {env_file}, which holds secrets"
        yield Finding("Files", text, f"chmod 600 {env_file}", wrong=True)
    else:
        yield Finding("Files", f"Only you can read {env_file}")
    folder = settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if os.access(folder, os.W_OK | os.X_OK) and folder.is_dir():
        yield Finding("Files", f"DATA_DIR={settings.data_dir} can be written")
    else:
        text = f"DATA_DIR={settings.data_dir} cannot be written"
        cure = "let this user write there (chown), or set DATA_DIR to another folder"
        yield Finding("Files", text, cure, wrong=True)


async def examine_store(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the store accepts writes, and the state of its server."""
    async with connect(
        url=settings.redis_url, data_dir=settings.data_dir, replicas=settings.redis_replicas
    ) as store:
        began = time.monotonic()
        await store.command("SET", store.key("check"), "1", "PX", 1000)
        took = (time.monotonic() - began) * 1000
        what = "The store" if settings.redis_url else "The embedded store"
        yield Finding("Store", f"{what} takes writes, in {took:.1f} ms")
        for finding in await examine_server(store):
            yield finding


async def examine_model(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the model answers, and its providers with their prices."""
    if settings.hf_token and settings.names_model and not settings.model_url:
        # If no provider answers, the model's own error says why.
        server = ModelServer(ROUTER, settings.hf_token, settings.model_id, own=False)
        with suppress(aiohttp.ClientError):
            async with connect_model(server) as connection:
                for finding in await huggingface.examine(connection, settings.model_id):
                    yield finding
    async with open_assistant(settings, asyncio.Event()) as assistant:
        began = time.monotonic()
        try:
            async with aclosing(assistant.model.stream(_PROMPT)) as deltas:
                async for delta in deltas:
                    if isinstance(delta, Retrying):
                        raise delta.error
                    if isinstance(delta, Start) and delta.model:
                        text = f"{assistant.model.name} does not answer, but {delta.model} does"
                        yield Finding("Model", text, "correct MODEL_ID or its account")
                    if isinstance(delta, str):
                        break
        except ModelError as error:
            yield Finding("Model", str(error), wrong=True)
            return
        took = time.monotonic() - began
        yield Finding("Model", f"{assistant.model.name} answers, after {took:.1f} s")
        if settings.names_tools and await assistant.model.takes_tools() is False:
            text = f"{assistant.model.name} calls no tools"
            yield Finding(
                "Model", text, "choose another model, or set TOOLS=on to try it", wrong=True
            )


async def examine_tools(settings: Settings) -> AsyncIterator[Finding]:
    """Yield whether the search and the MCP servers answer, if there are any."""
    from bot.tools.mcp_servers import mcp_source
    from bot.tools.web_search import web_search

    async with mcp_source(settings) as servers:
        if search := web_search(settings):
            yield await search.examine()
        if servers:
            async for finding in servers.examine():
                yield finding


async def _ports(settings: Settings) -> AsyncIterator[Finding]:
    for name, (host, port) in servers(settings, _roles(settings)).items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            text = f"{name}={port} on {host} cannot be used: {error.strerror or error}"
            cure = (
                f"set {name} or {name.replace('PORT', 'HOST')} to another, or stop the program "
                "that uses it, such as a running bot"
            )
            yield Finding("Ports", text, cure)
        else:
            yield Finding("Ports", f"{name}={port} is free")
