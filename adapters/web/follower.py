"""Feeds the open pages of a process: one reader of the store, and events for each page."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import uuid4

from aiohttp import web

from adapters import live
from adapters.web.talks import Place, Talks
from bot.domain import Json, Standing, ThreadKey
from bot.errors import StoreUnavailable
from bot.intake.answers import GO_ON, question_of
from bot.intake.intake import Intake
from bot.languages import say
from bot.store import Store

log = logging.getLogger(__name__)

MOST_PAGES = 20  # open pages of one person in a process
_BLOCK_SECONDS = 1.5
_AWAY_SECONDS = 0.5  # between two reads of an unavailable store
# The pause after each read, so that entries are read together.
_GATHER_SECONDS = 0.004
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


@dataclass(frozen=True, slots=True)
class TurnView:
    """What a page shows of a turn; `note` is a status text below its answer.

    If a call waits to be allowed, the note says which.
    """

    standing: Standing
    note: str = ""


@dataclass(slots=True, eq=False)
class TalkView:
    """The state of one conversation; `last` (stream position) is None until loaded."""

    thread: ThreadKey
    last: str | None = None
    title: str = ""
    place: Place = ""
    answers: str = ""  # the label of the model that is chosen there; "" for the default
    is_known: bool = False  # whether it is in its person's list
    is_gone: bool = False  # deleted while it was followed
    turns: dict[str, TurnView] = field(default_factory=dict)
    # The call that is to be allowed, or "", and the status text that no record has, by turn.
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)
    pages: set[OpenPage] = field(default_factory=set)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def wake_pages(self) -> None:
        """Wake the pages to send changes."""
        for page in self.pages:
            page.news.set()


class OpenPage:
    """One open page; `news` is set when `talk` has changed.

    A slow page does not block others and has no backlog: it sends one difference when it can.
    """

    def __init__(self, talk: TalkView) -> None:
        self.talk = talk
        self.news = asyncio.Event()
        self.close_reason: Literal["", "crowded", "stopping"] = ""
        self._sent_head = ("", "", "")
        self._sent: dict[str, TurnView] = {}

    def end(self, why: Literal["crowded", "stopping"]) -> None:
        """Close the page: its person has too many open, or the process stops."""
        self.close_reason = why
        self.news.set()

    def state(self) -> str:
        """Return the event with the full state, and record it as sent."""
        talk = self.talk
        self._sent_head, self._sent = _head(talk), dict(talk.turns)
        turns: list[Json] = [
            _fields(one) | {"answer": one.standing.answer} for one in talk.turns.values()
        ]
        whole: dict[str, Json] = {
            "id": talk.thread.thread,
            "title": talk.title,
            "place": talk.place,
            "answers": talk.answers,
            "known": talk.is_known,
        }
        return _event("state", whole | {"turns": turns})

    def differences(self) -> str:
        """Return the events that bring the page up to date, and record them as sent."""
        if self.talk.is_gone:
            return _event("gone", {})
        before, turns = self._sent, self.talk.turns
        if self._sent_head != _head(self.talk) or before.keys() - turns.keys():
            return self.state()
        self._sent = dict(turns)
        changed = {one: view for one, view in turns.items() if before.get(one) != view}
        return "".join(
            _event("turn", _difference(before.get(one), view)) for one, view in changed.items()
        )


class Follower:
    """Reads the streams of all conversations with open pages, by one command at a time."""

    def __init__(self, *, store: Store, talks: Talks, intake: Intake) -> None:
        self._store = store
        self._talks = talks
        self._intake = intake
        self._views: dict[str, TalkView] = {}
        self._pages: list[OpenPage] = []  # the oldest first
        # An entry here interrupts a read, so that the next one includes a new page's stream.
        self._wake = store.key("live", f"process-{uuid4().hex}")
        self._wake_last = "0-0"

    @asynccontextmanager
    async def page(self, thread: ThreadKey) -> AsyncIterator[OpenPage]:
        """Follow a conversation; the page's talk is loaded. Raises StoreUnavailable."""
        stream = live.stream_of(self._store, thread)
        talk = self._views.setdefault(stream, TalkView(thread))
        page = OpenPage(talk)
        talk.pages.add(page)
        self._pages.append(page)
        own = [one for one in self._pages if one.talk.thread.channel == thread.channel]
        still_open = [one for one in own if not one.close_reason]
        if len(still_open) > MOST_PAGES:
            still_open[0].end("crowded")
        try:
            async with talk.loading:
                if talk.last is None:
                    await self._start(stream, talk)
            yield page
        finally:
            talk.pages.discard(page)
            self._pages.remove(page)
            if not talk.pages and self._views.get(stream) is talk:
                del self._views[stream]

    async def end_pages(self, _: object) -> None:
        """Close all pages at shutdown."""
        for page in self._pages:
            page.end("stopping")

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read()
            except StoreUnavailable as error:
                log.info("Open pages are not updated, the store is unavailable: %s", error)
                await self._return()
            await asyncio.sleep(_GATHER_SECONDS)

    async def _start(self, stream: str, talk: TalkView) -> None:
        # The position before the records, so that no change is missed.
        last, changes = await live.last_changes(self._store, stream)
        # No record has a status text, and a tool may run for long before the next one.
        for one in changes:
            if not one.look and not one.last:
                talk.notes[one.turn_id] = one.consent, one.note
        await self._load(talk)
        talk.last = last
        await self._store.command("XADD", self._wake, "MAXLEN", 1, "*", "wake", "1")
        await self._store.command("EXPIRE", self._wake, 3600)

    async def _read(self) -> None:
        started = {stream: talk.last for stream, talk in self._views.items() if talk.last}
        positions = started | {self._wake: self._wake_last}
        found = await live.read(self._store, positions, block_seconds=_BLOCK_SECONDS)
        changed: set[TalkView] = set()
        to_load: set[TalkView] = set()
        for stream, entry, change in found:
            if stream == self._wake:
                self._wake_last = entry
            elif talk := self._views.get(stream):
                changed.add(talk)
                talk.last = entry
                talk.is_gone = talk.is_gone or change.gone
                if not _apply(talk, change):
                    to_load.add(talk)
        await asyncio.gather(*map(self._load, to_load))
        for talk in changed:
            talk.wake_pages()

    async def _load(self, talk: TalkView) -> None:
        """Read a conversation from the store."""
        try:
            turn_ids = await self._talks.turns(talk.thread)
            standings = await self._intake.lookup.standings(
                *turn_ids, person_id=talk.thread.channel
            )
            listed = await self._talks.find(talk.thread)
            answers = await self._intake.preferences.answers(talk.thread)
        except StoreUnavailable:
            raise
        except Exception:
            # An error in one conversation must not stop the updates of the others.
            log.exception("Cannot load conversation %s", talk.thread)
            return
        talk.title, talk.place = (listed.title, listed.place) if listed else ("", "")
        talk.answers, talk.is_known = answers, listed is not None
        # A question goes with its answer; other notes stay while the turn runs.
        running = {one.turn_id: one.consent for one in standings if one.state == "running"}
        talk.notes = {one: it for one, it in talk.notes.items() if running.get(one) == it[0]}
        talk.turns = {
            one.turn_id: TurnView(one, one.sign or talk.notes.get(one.turn_id, ("", ""))[1])
            for one in standings
        }

    async def _return(self) -> None:
        """Wait for the store, then reload everything: it may be another instance or older."""
        while True:
            await asyncio.sleep(_AWAY_SECONDS)
            with suppress(StoreUnavailable):
                for stream, talk in list(self._views.items()):
                    async with talk.loading:
                        await self._start(stream, talk)
                    talk.wake_pages()
                return


def _apply(talk: TalkView, change: live.Change) -> bool:
    """Apply a change; False if the records must be reloaded."""
    view = talk.turns.get(change.turn_id)
    if change.look or change.last:
        return False
    talk.notes[change.turn_id] = change.consent, change.note
    if view is None:
        return False
    text = change.applied(view.standing.answer)
    if text is None:
        return False
    standing = replace(view.standing, state="running", answer=text, consent=change.consent, sign="")
    standing = replace(standing, below="", end="", rating="", model="", thought=change.thought)
    talk.turns[change.turn_id] = TurnView(standing, change.note)
    return True


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
        data = b"" if page.close_reason else page.state().encode()
        now = asyncio.get_running_loop().time
        asked = now()
        while True:
            async with asyncio.timeout(write_seconds):
                await _write(response, data)
            if page.talk.is_gone or page.close_reason:
                break
            await asyncio.sleep(_PAINT_SECONDS)
            data = await _next(page, heartbeat_seconds)
            if now() - asked >= heartbeat_seconds:
                if not await may_stay():
                    break
                asked = now()
        if page.close_reason == "crowded":
            async with asyncio.timeout(write_seconds):
                await _write(response, _event("end", {"why": say(_CROWDED)}).encode())
            return response
    if request.transport and not page.talk.is_gone:
        # Abort, or the buffer of a stalled page would stay.
        request.transport.abort()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    # In pieces, so that the buffer of a slow page holds one piece only.
    for start in range(0, len(data), _PIECE):
        await response.write(data[start : start + _PIECE])


async def _next(page: OpenPage, heartbeat_seconds: float) -> bytes:
    """Wait for changes and return them as events; a comment if the heartbeat is due."""
    with suppress(TimeoutError):
        async with asyncio.timeout(heartbeat_seconds):
            while True:
                await page.news.wait()
                page.news.clear()
                if page.close_reason:
                    return b""
                if text := page.differences():
                    return text.encode()
    return b": alive\n\n"


def _difference(old: TurnView | None, view: TurnView) -> dict[str, Json]:
    text, before = view.standing.answer, old.standing.answer if old else ""
    keep = live.common(before, text)
    fields = _fields(view)
    known = _fields(old) if old else {}
    news = {name: value for name, value in fields.items() if known.get(name) != value}
    always = {"id": fields["id"], "state": fields["state"]}
    return {"keep": _units(text[:keep]), "add": text[keep:], **news, **always}


def _head(talk: TalkView) -> tuple[str, str, str]:
    return talk.title, talk.place, talk.answers


def _fields(view: TurnView) -> dict[str, Json]:
    one = view.standing
    return {
        "id": _short(one.turn_id),
        "question": question_of(one),
        "continues": one.question == GO_ON,
        "asked_at": one.asked_at,
        "below": one.below,
        "note": view.note,
        "consent": one.consent,
        "model": one.model,
        "state": one.state,
        "end": one.end,
        "rating": one.rating,
        "files": [{"name": file.name} for file in one.files],
        "first": _short(one.version_of),
        "versions": [_short(it) for it in one.versions],
        "thought": one.thought,
    }


def _short(turn_id: str) -> str:
    """Return the id by which the page knows a turn."""
    return turn_id.rpartition(":")[2]


def _units(text: str) -> int:
    """Return the length in UTF-16 code units, as JavaScript counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _event(name: str, data: Mapping[str, Json]) -> str:
    # JSON escapes line ends, so an event has one line of data.
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
