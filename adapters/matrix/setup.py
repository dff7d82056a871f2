"""Examines the bot's account at a homeserver, and makes a token for it."""

from __future__ import annotations

import asyncio
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Collection, Sequence
from getpass import getpass
from typing import TextIO

import aiohttp

from adapters.matrix.client import CLIENT, REQUEST_SECONDS, MatrixClient, connected, path_of
from bot.domain import Finding
from bot.errors import CannotStart, MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed

# Since v1.11 files need the token, and that is the one way in which the adapter fetches them.
_NEEDED = (1, 11)
_VERSION = re.compile(r"v(\d+)\.(\d+)")
# Transactions belong to a device (v1.7, "Transaction identifiers"), so that answers are posted once
# across another login. A server may end its former token; Synapse 1.163 does not (measured).
DEVICE = "PARLEY"
_RATE_LIMIT = "docs/matrix.md has the request with which an admin of Synapse lifts it"


async def examine(
    homeserver: str, token: str, *, servers: Collection[str], rooms: Sequence[str]
) -> AsyncIterator[Finding]:
    """Yield what works and what does not, for the account and in these rooms.

    Its homeserver has to be one of `servers`, unless that is empty. Nothing is written.
    Raises CannotStart, Unreachable and SurfaceError.
    """
    async with connected(homeserver, token) as client:
        yield _version(await client.call("GET", f"{CLIENT}/versions"))
        yield Finding("Matrix", f"The token is that of {client.user_id}")
        if servers and client.server not in servers:
            text = f"{client.server} is not one of ALLOWED_SERVERS, so nobody is answered in rooms"
            yield Finding("Matrix", text, f"add {client.server} to ALLOWED_SERVERS", wrong=True)
        yield await _rate_limit(client)
        found = (await client.call("GET", path_of("joined_rooms"))).get("joined_rooms")
        joined = found if isinstance(found, list) else []
        cure = "" if joined else f"invite {client.user_id} to one"
        yield Finding("Matrix", f"The bot is in {len(joined)} rooms", cure)
        for room in rooms:
            yield await _in_room(client, room, joined)


def _version(found: dict[str, object]) -> Finding:
    named = found.get("versions")
    texts = [str(one) for one in named] if isinstance(named, list) else []
    known = [(int(one[1]), int(one[2])) for one in map(_VERSION.fullmatch, texts) if one]
    newest = max(known, default=(0, 0))
    if newest < _NEEDED:
        text = "The homeserver speaks no Matrix v1.11: files are not read"
        return Finding("Matrix", text, "update the homeserver")
    return Finding("Matrix", f"The homeserver speaks Matrix up to v{newest[0]}.{newest[1]}")


async def _rate_limit(client: MatrixClient) -> Finding:
    """Tell whether Synapse holds the account to its `rc_message`; only its admins may ask."""
    path = path_of("users", client.user_id, "override_ratelimit", base="/_synapse/admin/v1")
    try:
        found = await client.call("GET", path)
    except SurfaceError:
        text = "Whether the homeserver limits the bot is not known: Synapse's limit is one in 5 s"
        return Finding("Matrix", text, _RATE_LIMIT)
    if found and not found.get("messages_per_second"):
        return Finding("Matrix", "The homeserver does not limit how often the bot writes")
    return Finding("Matrix", "The homeserver limits how often the bot writes", _RATE_LIMIT)


async def _in_room(client: MatrixClient, room: str, joined: Collection[object]) -> Finding:
    if room not in joined:
        text = f"The bot is not in {room} of ALLOWED_CHANNELS"
        return Finding("Matrix", text, f"invite {client.user_id} there", wrong=True)
    try:
        await client.call("GET", path_of("rooms", room, "state", "m.room.encryption", ""))
    except MessageGone:
        return Finding("Matrix", f"The bot is in {room}")
    text = f"{room} of ALLOWED_CHANNELS is encrypted, which the bot cannot read"
    return Finding("Matrix", text, "make a room without encryption", wrong=True)


async def invitation(homeserver: str, token: str) -> str:
    """Return how people begin. Raises CannotStart and Unreachable."""
    async with connected(homeserver, token) as client:
        return (
            f"Invite {client.user_id} to a room, and mention it; or write to it directly. "
            "Switch encryption off when you make the room: it cannot be switched off later."
        )


async def log_in(homeserver: str, user: str, password: str) -> str:
    """Return a token of an account, of the same device "Parley" each time.

    Raises CannotStart with what the homeserver says, and SurfaceError if it fails.
    """
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
        "device_id": DEVICE,
        "initial_device_display_name": "Parley",
    }
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        client = MatrixClient(session, homeserver=homeserver, token="", budgets=None)
        try:
            found = await client.call("POST", path_of("login"), body=body, timeout=REQUEST_SECONDS)
        except (WriteDelayed, WriteFailed):
            raise
        except PlaceGone as error:
            raise CannotStart(f"{homeserver} refuses the user or the password: {error}") from error
        except SurfaceError as error:
            raise CannotStart(f"{homeserver} has no login by password: {error}") from error
    token = found.get("access_token")
    if not isinstance(token, str):
        raise CannotStart(f"{homeserver} gives no token")
    return token


def login_arguments(parser: ArgumentParser) -> None:
    """Add what `matrix-login` has to know."""
    parser.add_argument("homeserver", metavar="URL", help="such as https://matrix.example.org")
    parser.add_argument("user", metavar="USER", help="such as parley, or @parley:example.org")


async def print_token(arguments: Namespace, output: TextIO) -> None:
    """Ask for the password, and print the token. Raises as `log_in` does."""
    read = getpass if sys.stdin.isatty() else sys.stdin.readline
    password = (await asyncio.to_thread(read)).rstrip("\n")
    output.write(f"MATRIX_TOKEN={await log_in(arguments.homeserver, arguments.user, password)}\n")
