"""What every platform owes: a new adapter is finished when these pass for it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import pytest

from bot.concurrency import running
from bot.domain import Page, Purpose, Turn
from bot.errors import MessageGone, SurfaceError, WriteDelayed, WriteFailed
from bot.ports import Surface
from bot.store import Store
from tests.platforms.harness import (
    Harness,
    PeopledHarness,
    connecting,
    harness_of,
    installed,
    process_of,
    spec_of,
    uninstalled,
)
from tests.support.fakes import FakeModel, FakeQueue
from tests.support.replies import make_reply
from tests.support.settings import settings_of
from tests.support.synapse import Synapse
from tests.support.waiting import until

WITH_PEOPLE = ("discord", "slack", "matrix", "loopback")
ALL = (*WITH_PEOPLE, "web", "console")


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loopback example is an installed package."""
    installed(tmp_path, monkeypatch)
    yield
    uninstalled()


@pytest.fixture
def homeserver(request: pytest.FixtureRequest) -> Synapse | None:
    """The homeserver, for those tests that need it."""
    is_matrix = "matrix" in request.node.callspec.params.values()
    return cast(Synapse, request.getfixturevalue("synapse")) if is_matrix else None


@pytest.fixture(params=ALL)
async def place(
    request: pytest.FixtureRequest, store: Store, homeserver: Synapse | None
) -> AsyncIterator[Harness]:
    async with harness_of(request.param, store, homeserver) as harness:
        yield harness


@pytest.fixture(params=WITH_PEOPLE)
async def peopled(
    request: pytest.FixtureRequest, store: Store, homeserver: Synapse | None
) -> AsyncIterator[PeopledHarness]:
    async with harness_of(request.param, store, homeserver) as harness:
        yield cast(PeopledHarness, harness)


def page(text: str, number: int = 0, *, last: bool = False) -> Page:
    return Page(number, text, final=last, last=last, said=text)


class TestSpec:
    @pytest.fixture(params=ALL)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_it_has_names_for_people_and_for_models(self, name: str) -> None:
        spec = spec_of(name)

        assert re.fullmatch("[a-z]+", spec.name)
        assert spec.title
        assert spec.where
        assert spec.settings.name == name

    def test_each_setting_says_what_it_means(self, name: str) -> None:
        for variable in fields(spec_of(name).settings):  # type: ignore[arg-type]
            assert variable.metadata["meaning"]
            assert callable(variable.metadata["parse"])

    def test_an_example_of_an_id_looks_like_one(self, name: str) -> None:
        forms = [form for form in spec_of(name).ids.values() if form.example]

        assert all(form.fits(form.example) for form in forms)

    def test_names_of_one_person_alone_have_the_id(self, name: str) -> None:
        assert all("{id}" in part for part in spec_of(name).own_names)

    def test_who_is_elsewhere_can_be_examined_and_configured(self, name: str) -> None:
        spec = spec_of(name)

        assert spec.local or (spec.examine and spec.credential)
        assert spec.own(settings_of()).is_configured is False


@asynccontextmanager
async def writing(
    place: Harness, store: Store, turn: Turn, purpose: Purpose = Purpose.ANSWER
) -> AsyncIterator[Surface]:
    """A process that writes the answer to a turn."""
    async with connecting(place, store) as connected:
        assert connected.platform.name == place.name
        async with connected.platform.surface(turn, purpose) as surface:
            yield surface


class TestWriting:
    async def test_an_answer_grows_in_one_message(self, place: Harness, store: Store) -> None:
        turn = await place.ask()
        async with writing(place, store, turn) as surface:
            message = await surface.post(page("Because"))
            await surface.edit(message, page("Because of"))
            await surface.edit(message, page("Because of the rain.", last=True))

        assert [text.strip() for text in await place.shown(turn)] == ["Because of the rain."]

    async def test_a_repeated_write_changes_nothing(self, place: Harness, store: Store) -> None:
        turn = await place.ask()
        async with writing(place, store, turn) as surface:
            message = await surface.post(page("Because", last=True))
            await surface.edit(message, page("Because", last=True))
            await surface.edit(message, page("Because", last=True))

        assert [text.strip() for text in await place.shown(turn)] == ["Because"]

    @pytest.mark.parametrize("letter", ["x", "&", "é"])
    async def test_the_longest_page_is_shown_whole(
        self, peopled: PeopledHarness, store: Store, letter: str
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            text = letter * (surface.limit // surface.measure(letter))
            await surface.post(page(text, last=True))
            assert surface.measure(text + letter) > surface.limit

        assert await peopled.shown(turn) == [text]

    async def test_pages_stand_in_their_order(self, peopled: PeopledHarness, store: Store) -> None:
        turn, texts = await peopled.ask(), ["one", "two", "three"]
        async with writing(peopled, store, turn) as surface:
            for number, text in enumerate(texts):
                await surface.post(page(text, number, last=text == "three"))

        assert await peopled.shown(turn) == texts

    async def test_a_page_without_text_is_taken_away(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            await surface.post(page("one", last=True))
            more = await surface.post(page("two", 1))
            await surface.edit(more, Page(1, "", final=True))

        assert await peopled.shown(turn) == ["one"]

    async def test_a_whole_reply_is_shown_once(self, place: Harness, store: Store) -> None:
        turn, words = await place.ask(), [f"word{number} " for number in range(900)]
        async with writing(place, store, turn) as surface:
            await reply(surface, store, words)

        shown = " ".join(await place.shown(turn))
        assert shown.split() == "".join(words).split()


async def reply(surface: Surface, store: Store, words: Sequence[str]) -> None:
    written = make_reply(store, surface, patience=30.0)
    await written.stream(FakeModel(words, pause=0.0).stream([]))


class TestFailures:
    async def test_a_post_whose_answer_is_lost_is_there_once(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            peopled.lose_the_answer_to_a_post()
            with pytest.raises(WriteFailed):
                await surface.post(page("Because"))
            await surface.post(page("Because of the rain.", last=True))

        assert await peopled.shown(turn) == ["Because of the rain."]

    async def test_what_a_dead_process_posted_is_gone_on_with(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            unsaved = await surface.post(page("Because"))
        async with writing(peopled, store, turn, Purpose.RESUME) as surface:
            message = await surface.post(page("Because of the rain.", last=True))

        assert message == unsaved
        assert await peopled.shown(turn) == ["Because of the rain."]

    async def test_messages_that_nobody_recorded_are_named(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            known = await surface.post(page("one", last=True))
            unknown = await surface.post(page("two", 1, last=True))
        async with connecting(peopled, store) as connected:
            found = await connected.platform.orphaned_messages(turn, but=[known])

        assert list(found) == [unknown]

    async def test_a_deleted_message_is_reported(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            # A stream of Slack is no message that people could delete.
            message = await surface.post(page("Because", last=True))
            await peopled.delete(turn, message)
            with pytest.raises(MessageGone):
                await surface.edit(message, page("Because of", last=True))

    async def test_a_write_above_the_limit_is_refused_with_the_seconds_to_wait(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = await peopled.ask()
        async with writing(peopled, store, turn) as surface:
            message = await surface.post(page("Because", last=True))
            peopled.ask_to_wait(7)
            with pytest.raises(WriteDelayed) as refused:
                await surface.edit(message, page("Because of", last=True))

        assert 6 < refused.value.retry_after < 9

    async def test_a_turn_without_a_place_has_no_surface(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        turn = replace(await peopled.ask(), place={})
        async with connecting(peopled, store) as connected:
            with pytest.raises(SurfaceError):
                async with connected.platform.surface(turn) as surface:
                    await surface.post(page("Because"))


class TestHearing:
    async def test_a_question_becomes_a_turn_once(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        queue = FakeQueue()
        async with Hearing(peopled, store, queue) as stack:
            asked = await peopled.ask("why?")
            await until(lambda: queue.turns)
            await stack.aclose()
        await peopled.ask("while nobody hears")
        # Another process goes on where the first one has ended.
        async with Hearing(peopled, store, queue):
            await peopled.ask("and then?")
            await until(lambda: len(queue.turns) > 2)

        said = [turn.text for turn in queue.turns]
        assert sorted(said) == ["and then?", "while nobody hears", "why?"]
        assert (queue.turns[0].id, queue.turns[0].key.platform) == (asked.id, peopled.name)

    async def test_a_question_that_is_deleted_is_forgotten(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        queue = FakeQueue()
        async with Hearing(peopled, store, queue):
            turn = await peopled.ask()
            await until(lambda: queue.turns)
            await peopled.delete(turn)
            await until(lambda: queue.forgotten)

        assert turn.id in queue.forgotten

    async def test_what_others_said_before_the_question_can_be_read(
        self, peopled: PeopledHarness, store: Store
    ) -> None:
        said = ["It rains.", "In the hills."]
        turn = await peopled.ask_after(*said)
        async with connecting(peopled, store) as connected:
            found = await connected.platform.read_context(turn, since="", most=10)

        others = [one for one in found if one.text in said]
        assert [one.text for one in others] == said
        assert all(one.person and one.in_thread for one in others)


class Hearing:
    """A process that hears a platform, until the end of the block."""

    def __init__(self, peopled: PeopledHarness, store: Store, queue: FakeQueue) -> None:
        self._process = process_of(peopled, store, queue, hears=True)
        self._spec = spec_of(peopled.name)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncExitStack:
        connected = await self._stack.enter_async_context(self._spec.connect(self._process))
        assert connected.listen
        assert connected.downtime
        downtime = connected.downtime
        await self._stack.enter_async_context(running(connected.listen()))
        await until(lambda: downtime() == 0.0)
        return self._stack

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
