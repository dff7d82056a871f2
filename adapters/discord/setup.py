"""Examines an application's set-up at Discord, and makes the address that invites its bot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from urllib.parse import urlencode

import discord

from adapters.discord.gateway.connection import add_server
from adapters.discord.rest import Payload, fail_at_once, logged_in, request
from adapters.discord.settings import DiscordSettings
from bot.domain import Finding
from bot.errors import SurfaceError

# What a bot needs where people talk to it, by its name in Discord's settings and discord.py's.
NEEDED = {
    "View Channels": "view_channel",
    "Send Messages": "send_messages",
    "Create Public Threads": "create_public_threads",
    "Send Messages in Threads": "send_messages_in_threads",
    "Read Message History": "read_message_history",
    "Attach Files": "attach_files",
}
PERMISSIONS = discord.Permissions(**dict.fromkeys(NEEDED.values(), True))
_PORTAL = "https://discord.com/developers"
_FEW_STARTS = 50  # of the 1,000 sessions that a bot may begin in a day
_SERVERS_OF_A_SHARD = 2500  # Discord's documentation, "Sharding"


def invite_address(application: int) -> str:
    """Return the address at which somebody adds the bot to a server."""
    query = {
        "client_id": application,
        "scope": "bot applications.commands",
        "permissions": PERMISSIONS.value,
    }
    return f"https://discord.com/oauth2/authorize?{urlencode(query)}"


async def invite(own: DiscordSettings) -> str:
    """Return the address that invites the bot of a token. Raises CannotStart and SurfaceError."""
    async with logged_in(own, trace=fail_at_once()) as client:
        return invite_address(client.application_id or 0)


async def examine(
    own: DiscordSettings, *, servers: Sequence[str], channels: Sequence[str]
) -> AsyncIterator[Finding]:
    """Yield what works and what does not, for the bot and in these servers and channels.

    Nothing is written, and no session is begun. Raises CannotStart if the token is refused, and
    SurfaceError if Discord fails.
    """
    async with logged_in(own, trace=fail_at_once()) as client:
        application = client.application_id or 0
        known = [*await request(client, "GET", "/users/@me/guilds")]
        yield Finding("Discord", f"The token is that of {client.user}, in {_count(known)}")
        yield _intent(client)
        yield await _sessions(client, len(known), sharded=own.shards is not None)
        yield await _commands(client, application)
        if not known:
            cure = f"open {invite_address(application)}"
            yield Finding("Discord", "The bot is in no server yet", cure)
        for finding in _in_servers(known, servers):
            yield finding
        for channel in channels:
            yield await _in_channel(client, channel)


def _count(known: Sequence[Payload]) -> str:
    names = ", ".join(str(one.get("name")) for one in known[:3])
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"{len(known)} servers" + (f" ({names}{more})" if names else "")


def _intent(client: discord.Client) -> Finding:
    flags = client.application_flags
    if flags.gateway_message_content or flags.gateway_message_content_limited:
        return Finding("Discord", "Message Content Intent is on")
    return Finding(
        "Discord",
        "Message Content Intent is off: the bot answers only mentions, replies, DMs and commands",
        f'switch on "Message Content Intent" under Bot at {_PORTAL}',
    )


async def _sessions(client: discord.Client, servers: int, *, sharded: bool) -> Finding:
    answer = await request(client, "GET", "/gateway/bot")
    left = int(answer["session_start_limit"]["remaining"])
    if servers >= _SERVERS_OF_A_SHARD and not sharded:
        text = f"A bot in {servers} servers needs {answer['shards']} shards"
        cure = f"set DISCORD_SHARDS, for example 0-{answer['shards'] - 1}/{answer['shards']}"
        return Finding("Discord", text, cure, wrong=True)
    if left < _FEW_STARTS:
        cure = "does a process keep restarting? its log says why"
        return Finding("Discord", f"Only {left} sessions may be begun today", cure, wrong=not left)
    return Finding("Discord", f"{left} sessions may be begun today")


async def _commands(client: discord.Client, application: int) -> Finding:
    path = "/applications/{application_id}/commands"
    found = await request(client, "GET", path, {"application_id": application})
    names = ", ".join(sorted(f"/{one['name']}" for one in found if one.get("type", 1) == 1))
    if not names:
        return Finding("Discord", "No command is registered yet; the first start does that")
    return Finding("Discord", f"Commands: {names}")


def _in_servers(known: Sequence[Payload], servers: Sequence[str]) -> Iterable[Finding]:
    by_id = {str(one["id"]): one for one in known}
    for server in servers:
        if server not in by_id:
            text = f"The bot is not in server {server} of ALLOWED_SERVERS"
            yield Finding("Discord", text, "invite it (python -m bot invite)", wrong=True)
    for server, one in by_id.items():
        # The permissions of the bot itself, without those of channels (documentation: "Get Current
        # User Guilds").
        lacks = _lacking(discord.Permissions(int(one.get("permissions") or 0)))
        if lacks and (server in servers or not servers):
            cure = f"give its role {lacks} in the server's settings, or invite it again"
            text = f"The bot lacks {lacks} in {one.get('name')} ({server})"
            yield Finding("Discord", text, cure, wrong=True)


def _lacking(permissions: discord.Permissions) -> str:
    if permissions.administrator:
        return ""
    return ", ".join(name for name, flag in NEEDED.items() if not getattr(permissions, flag))


async def _in_channel(client: discord.Client, channel: str) -> Finding:
    where = f"channel {channel} of ALLOWED_CHANNELS"
    cure = f"let the bot's role see it, with {', '.join(NEEDED)}"
    try:
        found = await request(client, "GET", "/channels/{channel_id}", {"channel_id": channel})
        allowed = await _permissions_in(client, found)
    except SurfaceError as error:
        # Discord tells the same of a channel that is gone and of an id with a wrong digit.
        cure = f"correct the id, or {cure}"
        return Finding("Discord", f"The bot cannot see {where}: {error}", cure, wrong=True)
    if lacks := _lacking(allowed):
        return Finding("Discord", f"The bot lacks {lacks} in {where}", cure, wrong=True)
    return Finding("Discord", f"The bot may answer in #{found.get('name')} ({channel})")


async def _permissions_in(client: discord.Client, channel: Payload) -> discord.Permissions:
    server = {"guild_id": channel["guild_id"]}
    guild = await request(client, "GET", "/guilds/{guild_id}", server)
    me = {**server, "user_id": client.user.id if client.user else 0}
    member = await request(client, "GET", "/guilds/{guild_id}/members/{user_id}", me)
    add_server(client, {**guild, "channels": [channel], "members": [member]})
    known = client.get_channel(int(channel["id"]))
    if not isinstance(known, discord.abc.GuildChannel):
        return discord.Permissions.none()
    return known.permissions_for(known.guild.me)
