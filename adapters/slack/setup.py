"""Checks the configuration of a Slack app."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import code_of, missing_scopes, translated
from adapters.slack.manifest import SCOPES, WITHOUT
from adapters.slack.settings import INSTALL_PATH, SlackSettings
from adapters.slack.workspace import TOKEN_CURES, Identity, identify
from bot.domain import Finding
from bot.errors import ParleyError, SurfaceError
from bot.store import Store

if TYPE_CHECKING:
    from adapters.slack.installed.installations import Installations

# Slack's documentation, "Verifying requests from Slack": a hex string of 32 digits.
_SECRET = re.compile(r"[0-9a-f]{32}")
_MOST_EXAMINED = 20  # workspaces, one request each
_SCOPES_PAGE = "OAuth & Permissions at https://api.slack.com/apps"


async def examine(
    own: SlackSettings, *, workspaces: Collection[str], channels: Collection[str]
) -> AsyncIterator[Finding]:
    """Yield findings about the app and these channels.

    Its workspace has to be one of `workspaces`, unless that is empty. Nothing is written.
    Raises CannotStart if the bot token is refused.
    """
    async with aiohttp.ClientSession(trust_env=True) as session:
        url = own.api_url or AsyncWebClient.BASE_URL
        client = AsyncWebClient(own.bot_token, base_url=url, session=session)
        identity = await identify(client)
        yield Finding("Slack", f"The token is that of @{identity.name} in {identity.team_name}")
        if workspaces and identity.team not in workspaces:
            cure = f"add {identity.team} to ALLOWED_SERVERS"
            text = f"{identity.team_name} ({identity.team}) is not one of ALLOWED_SERVERS"
            yield Finding("Slack", text, cure, wrong=True)
        yield _scopes(identity.missing)
        if own.app_token:
            yield await _socket_mode(client, own.app_token)
        if own.signing_secret:
            yield _secret(own.signing_secret)
        for channel in channels:
            yield await _in_channel(client, identity, channel)


async def examine_several(
    own: SlackSettings, *, store: AbstractAsyncContextManager[Store], workspaces: Collection[str]
) -> AsyncIterator[Finding]:
    """Yield findings about the app, and about each workspace that has installed it.

    Nothing is written. Raises CannotStart if the store cannot be connected, or decrypted without
    another package.
    """
    from adapters.slack.installed.installations import Installations

    link = own.public(INSTALL_PATH)
    async with store as connected, aiohttp.ClientSession(trust_env=True) as session:
        installations = Installations(connected, own.store_key)
        ids = await installations.ids()
        text = f"Workspaces and organizations that have installed the app: {len(ids)}"
        yield Finding("Slack", text, "" if ids else f"start the bot, and open {link}")
        url = own.api_url or AsyncWebClient.BASE_URL
        app = AsyncWebClient(None, base_url=url, session=session)
        if own.app_token:
            yield await _socket_mode(app, own.app_token)
        if own.signing_secret:
            yield _secret(own.signing_secret)
        for id_ in ids[:_MOST_EXAMINED]:
            yield await _installed(installations, id_, url, session, link=link)
            if workspaces and id_ not in workspaces:
                cure = f"add {id_} to ALLOWED_SERVERS, or leave it out"
                yield Finding("Slack", f"{id_} is not one of ALLOWED_SERVERS", cure)
        if left := ids[_MOST_EXAMINED:]:
            yield Finding("Slack", f"{len(left)} more were not examined")


async def _installed(
    installations: Installations, id_: str, url: str, session: aiohttp.ClientSession, *, link: str
) -> Finding:
    try:
        found = await installations.peek(id_)
    except ParleyError as error:
        return Finding("Slack", str(error), "set the key with which it was encrypted", wrong=True)
    if found is None:
        return Finding("Slack", f"{id_} has just uninstalled the app")
    where = f"{found.name} ({id_})"
    if found.has_expired:
        return Finding("Slack", f"The token of {where} has expired: its next use refreshes it")
    try:
        async with translated():
            await AsyncWebClient(found.token, base_url=url, session=session).auth_test()
    except SurfaceError as error:
        text = f"Slack refuses the token of {where}: {code_of(error) or error}"
        cure = f"install the app there again, at {link}; uninstall it then if it is not wanted"
        return Finding("Slack", text, cure, wrong=True)
    return Finding("Slack", f"The token of {where} works")


def _scopes(missing: Collection[str]) -> Finding:
    cure = f"add {', '.join(missing)} under {_SCOPES_PAGE}, and install the app again"
    if needed := [scope for scope in missing if scope not in WITHOUT]:
        return Finding("Slack", f"The app lacks {', '.join(needed)}", cure, wrong=True)
    if missing:
        effects = "; ".join(dict.fromkeys(WITHOUT[scope] for scope in missing))
        return Finding("Slack", f"The app lacks {', '.join(missing)}: {effects}", cure)
    return Finding("Slack", f"The app lacks none of the {len(SCOPES)} scopes")


async def _socket_mode(client: AsyncWebClient, app_token: str) -> Finding:
    try:
        async with translated():
            await client.apps_connections_open(app_token=app_token)
    except SurfaceError as error:
        text = f"Slack refuses SLACK_APP_TOKEN: {code_of(error) or error}"
        cure = TOKEN_CURES["SLACK_APP_TOKEN"]
        if "connections:write" in missing_scopes(error):
            text = "SLACK_APP_TOKEN lacks connections:write"
            cure = "make another with that scope at https://api.slack.com/apps"
        return Finding("Slack", text, cure, wrong=True)
    return Finding(
        "Slack",
        "Socket Mode works; which events the app gets Slack does not tell the bot: the manifest "
        "has them",
    )


def _secret(signing_secret: str) -> Finding:
    if not _SECRET.fullmatch(signing_secret):
        cure = 'copy the "Signing Secret" under Basic Information at https://api.slack.com/apps'
        text = "SLACK_SIGNING_SECRET does not look like one: those have 32 hexadecimal digits"
        return Finding("Slack", text, cure, wrong=True)
    return Finding("Slack", "SLACK_SIGNING_SECRET has the right form")


async def _in_channel(client: AsyncWebClient, identity: Identity, channel: str) -> Finding:
    cure = f"invite it there: /invite @{identity.name}"
    try:
        async with translated():
            found = (await client.conversations_info(channel=channel))["channel"]
    except SurfaceError as error:
        if missing := missing_scopes(error)[0]:
            text = f"Whether the bot is in {channel} is not known: the app lacks {missing}"
            return Finding("Slack", text)
        text = f"The bot does not see {channel} of ALLOWED_CHANNELS"
        return Finding("Slack", text, cure, wrong=True)
    if not found.get("is_member"):
        text = f"The bot is not in {channel} of ALLOWED_CHANNELS"
        return Finding("Slack", text, cure, wrong=True)
    return Finding("Slack", f"The bot is in {channel}")
