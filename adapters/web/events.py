"""The server-sent events of an open page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from aiohttp import web

from adapters.live import common
from adapters.web.follower import OpenPage, TalkView, TurnView
from bot.domain import Json
from bot.intake.answers import GO_ON

HEARTBEAT_SECONDS = 15.0  # interval that keeps idle connections open through proxies
_PAINT_SECONDS = 0.05  # the shortest time between two events; replies are written less often
WRITE_SECONDS = 30.0  # timeout of a write; the page reconnects after it
_PIECE = 64 * 1024  # bytes in one write
_CROWDED = "You have opened this page in many other windows, so this one no longer updates."
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # nginx would buffer the events.
    "X-Accel-Buffering": "no",
}


async def send_events(
    request: web.Request,
    page: OpenPage,
    *,
    may_stay: Callable[[], Awaitable[bool]],
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    write_seconds: float = WRITE_SECONDS,
) -> web.StreamResponse:
    """Stream a conversation to a page until it disconnects or the conversation is deleted.

    Ends when `may_stay` returns False, checked at each heartbeat. The first event is the full
    state; later ones are differences, merged while the page is slow.
    """
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    with suppress(ConnectionError, TimeoutError):
        sent = Sent(page.talk)
        data = b"" if page.close_reason else state_of(page.talk).encode()
        now = asyncio.get_running_loop().time
        asked = now()
        while True:
            async with asyncio.timeout(write_seconds):
                await _write(response, data)
            if page.talk.is_gone or page.close_reason:
                break
            await asyncio.sleep(_PAINT_SECONDS)
            data = await _next(page, sent, heartbeat_seconds)
            if now() - asked >= heartbeat_seconds:
                if not await may_stay():
                    break
                asked = now()
        if page.close_reason == "crowded":
            async with asyncio.timeout(write_seconds):
                await _write(response, _event("end", {"why": _CROWDED}).encode())
            return response
    if request.transport and not page.talk.is_gone:
        # Abort, or the buffer of a stalled page would stay.
        request.transport.abort()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    # In pieces, so that the buffer of a slow page holds one piece only.
    for start in range(0, len(data), _PIECE):
        await response.write(data[start : start + _PIECE])


async def _next(page: OpenPage, sent: Sent, heartbeat_seconds: float) -> bytes:
    """Wait for changes and return them as events; a comment if the heartbeat is due."""
    with suppress(TimeoutError):
        async with asyncio.timeout(heartbeat_seconds):
            while True:
                await page.news.wait()
                page.news.clear()
                if page.close_reason:
                    return b""
                if text := sent.differences(page.talk):
                    return text.encode()
    return b": alive\n\n"


def state_of(talk: TalkView) -> str:
    """Return the event with the full state."""
    turns: list[Json] = [
        _fields(one) | {"answer": one.standing.answer} for one in talk.turns.values()
    ]
    return _event(
        "state",
        {"id": talk.thread.thread, "title": talk.title, "known": talk.is_known, "turns": turns},
    )


class Sent:
    """The state that a page has received, at first the full one."""

    def __init__(self, talk: TalkView) -> None:
        self._title = talk.title
        self._turns = dict(talk.turns)

    def differences(self, talk: TalkView) -> str:
        """Return the events that bring the page up to date, and record them as sent."""
        title, before = self._title, self._turns
        self._title, self._turns = talk.title, dict(talk.turns)
        if talk.is_gone:
            return _event("gone", {})
        if title != talk.title or before.keys() - talk.turns.keys():
            return state_of(talk)
        changed = {one: view for one, view in talk.turns.items() if before.get(one) != view}
        return "".join(
            _event("turn", _difference(before.get(one), view)) for one, view in changed.items()
        )


def _difference(old: TurnView | None, view: TurnView) -> dict[str, Json]:
    text, before = view.standing.answer, old.standing.answer if old else ""
    keep = common(before, text)
    fields = _fields(view)
    known = _fields(old) if old else {}
    news = {name: value for name, value in fields.items() if known.get(name) != value}
    always = {"id": fields["id"], "state": fields["state"]}
    return {"keep": _units(text[:keep]), "add": text[keep:], **news, **always}


def _fields(view: TurnView) -> dict[str, Json]:
    one = view.standing
    goes_on = one.question == GO_ON
    return {
        # As the page named the question.
        "id": one.turn_id.rpartition(":")[2],
        "question": "" if goes_on else one.question,
        "continues": goes_on,
        "asked_at": one.asked_at,
        "below": one.below,
        "note": view.note,
        "model": one.model,
        "state": one.state,
        "end": one.end,
        "rating": one.rating,
    }


def _units(text: str) -> int:
    """Return the length in UTF-16 code units, as JavaScript counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _event(name: str, data: Mapping[str, Json]) -> str:
    # JSON escapes line ends, so an event has one line of data.
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
