"""Bare HTTP against the Discord emulator, for what discord.py hides."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.emulators.discord import DiscordEmulator

WAIT = 60.0  # seconds within which everything here must happen


@contextlib.asynccontextmanager
async def http_of(emulator: DiscordEmulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Bare HTTP with the bot's token."""
    headers = {"Authorization": f"Bot {emulator.token}"}
    timeout = aiohttp.ClientTimeout(total=WAIT)
    base = emulator.api_url + "/"
    async with aiohttp.ClientSession(base, headers=headers, timeout=timeout) as session:
        yield session


async def sent(
    http: aiohttp.ClientSession, path: str, body: object, *, method: str = "POST"
) -> tuple[int, Any]:
    """Call with this; return the status, and the body of an answer that has one."""
    async with http.request(method, path, json=body) as answer:
        return answer.status, {} if answer.status == 204 else await answer.json()


async def slashed(emulator: DiscordEmulator, http: aiohttp.ClientSession) -> tuple[str, str]:
    """Use /ask; return where its callback and where its webhook is."""
    command = {"name": "ask", "description": "Ask"}
    await sent(http, f"applications/{emulator.application_id}/commands", [command], method="PUT")
    asked = await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask")
    token = emulator.token_of(asked)
    return f"interactions/{asked}/{token}/callback", f"webhooks/{emulator.application_id}/{token}"
