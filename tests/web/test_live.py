"""A growing reply travels as what follows, and a follower notes when it has missed something."""

from __future__ import annotations

import pytest

from adapters import live
from adapters.live import LiveSurface
from bot.domain import Page, Person, ThreadKey, Turn
from bot.errors import WriteFailed
from bot.reply.draft import WAITING
from bot.store import Store
from tests.support.fakes import RefusingStore

KEY = ThreadKey("web", "", "ann", "talk")
TURN = Turn("web:ann:one", KEY, Person("ann", "Ann"), "why?", {}, 1.0)


def growing(said: str, sign: str = "") -> Page:
    return Page(0, f"{said}\n\n{sign}" if sign else said, final=False, said=said)


async def test_an_answer_is_not_written_whole_with_each_delta(store: Store) -> None:
    surface, texts = LiveSurface(store=store, turn=TURN), ["One", "One two", "One two three"]
    for text in texts[:-1]:
        await surface.post(growing(text))
    await surface.edit("", growing(texts[-1], WAITING))
    await surface.edit("", Page(0, f"{texts[-1]}.", final=True, last=True, end="cut"))

    stream = live.stream_of(store, KEY)
    found = [one for _, _, one in await live.read(store, {stream: "0-0"}, block_seconds=0.1)]

    assert [one.add for one in found] == ["One", " two", " three", "."]
    assert [one.note for one in found] == ["", "", WAITING, ""]
    assert (found[-1].last, found[-1].end) == (True, "cut")
    shown: str | None = ""
    for one in found:
        shown = one.applied(shown or "")
    assert shown == "One two three."
    # Who has missed the second one knows it.
    assert found[2].applied("One") is None
    assert await store.command("TTL", stream) > 3600


async def test_what_may_not_have_arrived_is_written_whole(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    surface, stream = LiveSurface(store=store, turn=TURN), live.stream_of(store, KEY)
    await surface.post(growing("One"))
    store.refused.add(stream)
    with pytest.raises(WriteFailed):
        await surface.edit("", growing("One two"))
    store.refused.remove(stream)
    await surface.edit("", growing("One two three"))

    found = await live.read(store, {stream: "0-0"}, block_seconds=0.1)

    assert [one.add for _, _, one in found] == ["One", "One two three"]


async def test_entries_of_another_version_are_looked_up(store: Store) -> None:
    stream = live.stream_of(store, KEY)
    for fields in (("turn", "a", "keep", "x"), ("words", "Hi"), ("turn", "b", "end", "new")):
        await store.command("XADD", stream, "*", *fields)

    found = [one for _, _, one in await live.read(store, {stream: "0-0"}, block_seconds=0.1)]

    assert [(one.turn_id, one.look) for one in found] == [("a", True), ("", True), ("b", True)]
