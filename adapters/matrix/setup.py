"""Examines the bot's account at a homeserver, and makes a token for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import aiohttp

from adapters.matrix.client import CLIENT, MatrixClient, connected, path_of
from bot.domain import Finding
from bot.errors import CannotStart, MessageGone, SurfaceError, WriteDelayed, WriteFailed
from config.variables import checked_address

# Since then files need the token, and that is the one way in which the adapter fetches them.
_NEEDED = "v1.11"
# Transactions belong to a device (v1.7, "Transaction identifiers"), so that answers are posted once
# across another login. A server may end its former token; Synapse 1.163 does not (measured).
DEVICE = "PARLEY"
_RATE_LIMIT = "Synapse lets an account write once in 5 s, unless an admin has lifted that"
_LIFTING = "docs/matrix.md has the request that lifts it"


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
        yield Finding("Matrix", _RATE_LIMIT, _LIFTING)
        joined = await client.joined_rooms()
        cure = "" if joined else f"invite {client.user_id} to one"
        yield Finding("Matrix", f"The bot is in {len(joined)} rooms", cure)
        for room in rooms:
            yield await _in_room(client, room, joined)


def _version(found: dict[str, object]) -> Finding:
    versions = found.get("versions")  # each that the server supports
    if isinstance(versions, list) and _NEEDED in versions:
        return Finding("Matrix", f"The homeserver speaks Matrix {_NEEDED}")
    text = f"The homeserver speaks no Matrix {_NEEDED}: files are not read"
    return Finding("Matrix", text, "update the homeserver")


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
    """Return a token of an account, of the same device "Parley" each time. Raises CannotStart."""
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
            checked_address(homeserver, ("https", "http"))
            found = await client.call("POST", path_of("login"), body=body)
        except ValueError as error:
            raise CannotStart(f"{homeserver} {error}") from error
        except (WriteDelayed, WriteFailed) as error:
            raise CannotStart(f"{homeserver} cannot be asked: {error}") from error
        except SurfaceError as error:
            raise CannotStart(f"{homeserver} refuses the login: {error}") from error
    if not isinstance(token := found.get("access_token"), str):
        raise CannotStart(f"{homeserver} gives no token")
    return token
