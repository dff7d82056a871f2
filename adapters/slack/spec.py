"""Slack, as a process sees it: how its settings are asked for, checked and used."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TextIO

from adapters.slack.settings import INSTALL_PATH, REDIRECT_PATH, SlackSettings
from bot.domain import Finding
from bot.errors import CannotStart, StoreUnavailable, Unreachable
from bot.platform_spec import Command, Connected, PlatformSpec, Process, Question
from config.settings import Settings
from config.variables import IdForm


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.slack.platform import connect

    own = SlackSettings.of(process.settings)
    rated = process.settings.rates(usual=True)
    if own.client_id:
        async with _connect_several(process, own, rated=rated) as connected:
            yield connected
        return
    async with connect(own, budgets=process.budgets, rated=rated) as platform:
        if "slack" in process.roles:
            # It may have been uninstalled before.
            try:
                await process.intake.keep_servers("slack", [platform.workspace.identity.team])
            except StoreUnavailable as error:
                raise Unreachable(str(error)) from error
        if own.app_token:
            listen = partial(platform.listen, process.intake, store=process.store)
            yield Connected(platform, listen, platform.downtime, tell=platform.tell)
        elif "slack" in process.roles:
            # Slack connects for each event, and the handler gets it: no connection is missing.
            handler = platform.handler(process.intake)
            yield Connected(platform, asyncio.Event().wait, lambda: 0.0, handler, platform.tell)
        else:
            yield Connected(platform, tell=platform.tell)


@asynccontextmanager
async def _connect_several(
    process: Process, own: SlackSettings, *, rated: bool
) -> AsyncIterator[Connected]:
    from adapters.slack.installed.platform import connect

    store, intake, budgets = process.store, process.intake, process.budgets
    async with connect(own, store=store, intake=intake, budgets=budgets, rated=rated) as platform:
        if "slack" not in process.roles:
            yield Connected(platform, tell=platform.tell)
        elif own.app_token:
            handler = platform.handler(posts=False)
            listen = partial(platform.listen, store=store)
            yield Connected(platform, listen, platform.downtime, handler, platform.tell)
        else:
            handler = platform.handler(posts=True)
            yield Connected(platform, asyncio.Event().wait, lambda: 0.0, handler, platform.tell)


async def _print_install_link(
    settings: Settings, _arguments: argparse.Namespace, output: TextIO
) -> None:
    own = SlackSettings.of(settings)
    if not own.client_id:
        raise CannotStart(
            "install-link needs SLACK_CLIENT_ID: without it the bot has one workspace"
        )
    output.write(
        f"{own.public(INSTALL_PATH)}\n\n"
        "Open this in a browser while the bot runs, or send it to an admin of another workspace:\n"
        "Slack asks there, and the bot answers there from then on.\n"
        "Slack lets other workspaces in once Manage Distribution is switched on, at\n"
        f"https://api.slack.com/apps, with {own.public(REDIRECT_PATH)} as redirect URL.\n"
    )


def _examine(settings: Settings) -> AsyncIterator[Finding]:
    from adapters.slack.setup import examine, examine_several
    from bot.store import connect

    own, channels = SlackSettings.of(settings), PLATFORM.own_ids(settings.allowed_channels)
    if own.client_id:
        store = connect(url=settings.redis_url, data_dir=settings.data_dir)
        return examine_several(own, store=store, workspaces=settings.allowed_servers)
    return examine(own, workspaces=settings.allowed_servers, channels=channels)


async def _print_manifest(
    settings: Settings, arguments: argparse.Namespace, output: TextIO
) -> None:
    from adapters.slack.manifest import as_yaml, manifest

    own = SlackSettings.of(settings)
    # The address comes before the client id, which Slack gives to the app of this manifest.
    redirect = own.public(REDIRECT_PATH) if own.public_url else ""
    output.write(
        as_yaml(
            manifest(base_url=arguments.http, prompts=own.suggested_prompts, redirect_url=redirect)
        )
    )


def _https(text: str) -> str:
    if text and not text.startswith("https://"):
        raise argparse.ArgumentTypeError("Slack sends events to addresses with https:// only")
    return text


def _manifest_arguments(parser: argparse.ArgumentParser) -> None:
    where = "where the bot is reached; without: Socket Mode"
    parser.add_argument("--http", metavar="URL", default="", type=_https, help=where)


PLATFORM = PlatformSpec(
    title="Slack",
    where="Slack",
    settings=SlackSettings,
    connect=_connect,
    ids={
        # For shared channels Slack may report only the organisation (E...).
        "server": IdForm("T[A-Z0-9]{2,30}", "T0123ABCD", "workspace", "E[A-Z0-9]{2,30}"),
        "channel": IdForm("[CG][A-Z0-9]{2,30}", "C0123ABCD"),
        "person": IdForm("[UW][A-Z0-9]{2,30}", "U0123ABCD"),
    },
    ids_help="Slack's begin with T (a workspace), C (a channel), U or W (a person)",
    credential="SLACK_BOT_TOKEN",
    examine=_examine,
    questions=(
        Question(
            "SLACK_BOT_TOKEN",
            "Slack: the bot token (xoxb-…)",
            secret=True,
            before="For Slack, create an app from a manifest at https://api.slack.com/apps: paste "
            "what `{bot} manifest` prints, and install it.",
            check=_examine,
        ),
        Question(
            "SLACK_APP_TOKEN",
            "Slack: an app-level token with connections:write (xapp-…)",
            secret=True,
            needs=("SLACK_BOT_TOKEN",),
            check=_examine,
        ),
        Question(
            "SLACK_SIGNING_SECRET",
            "Slack: the signing secret, if its events come over HTTP instead",
            secret=True,
            needs=("SLACK_BOT_TOKEN", "!SLACK_APP_TOKEN"),
            check=_examine,
        ),
    ),
    access_questions=(
        Question(
            "ALLOWED_PEOPLE",
            "The ids of the only people in Slack who may use it",
            before="Slack has no roles, so people there are named one by one: their ids begin "
            "with U (Copy member ID in a profile).",
            needs=("ALLOWED_ROLES", "SLACK_BOT_TOKEN"),
        ),
    ),
    commands=(
        Command(
            "manifest", "print the manifest of the Slack app", _print_manifest, _manifest_arguments
        ),
        Command(
            "install-link",
            "print where other Slack workspaces install the app",
            _print_install_link,
        ),
    ),
    tokens=(("bot_token", "api_url"), ("client_secret", "api_url")),
    loggers=("slack_bolt", "slack_sdk"),
)
