"""Errands end before their keeper does, one way or the other."""

from __future__ import annotations

import asyncio

import pytest

from adapters.slack.errands import Errands


async def test_what_is_under_way_when_we_leave_comes_to_its_end() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append("shown")

    async with asyncio.timeout(5), Errands().open() as errands:
        errands.start(work())

    assert done == ["shown"]


async def test_what_does_not_end_when_we_leave_is_cancelled_and_has_left_before_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.errands._LAST", 0.05)
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("left")

    async with asyncio.timeout(5), Errands().open() as errands:
        errands.start(work())

    assert done == ["left"]


async def test_what_has_ended_is_not_kept() -> None:
    async with Errands().open() as errands:
        for _ in range(3):
            errands.start(asyncio.sleep(0))
        await asyncio.sleep(0.05)

        assert not errands._running
