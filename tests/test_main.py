"""The lifetimes of what a process runs."""

from __future__ import annotations

import asyncio

import pytest

from adapters.slack import socket
from bot import __main__ as main
from bot.__main__ import until_stopped


async def test_a_listener_that_loses_its_cancellation_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "_HEED_SECONDS", 0.1)
    told = 0

    async def listen() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
        raise asyncio.CancelledError

    stopping = asyncio.Event()
    stopping.set()

    async with asyncio.timeout(10):
        await until_stopped({"discord": listen()}, stopping)

    assert told == 2


def test_no_listener_is_told_again_while_it_ends_what_it_began() -> None:
    assert socket._LAST < main._HEED_SECONDS
