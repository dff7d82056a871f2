"""A call of a tool waits for the person on all their pages, and for nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from bot.errors import NotRemembered
from bot.intake.answers import NOT_WAITING
from bot.store import Store
from tests.support.asking import QUESTION, Rounds, asking_worker
from tests.support.service import serving
from tests.support.tools import CallingModel, FakeTool, call
from tests.support.waiting import until
from tests.support.web_page import Browser, Screen, address_of, browser, new_talk, web_variables

ROUNDS: Rounds = (["Let me see.", call()], ["It is done."])


@dataclass
class Waiting:
    """A question of a person, with a call that waits to be allowed."""

    person: Browser
    talk: str
    name: str
    screen: Screen
    model: CallingModel

    @property
    def turn(self) -> dict[str, Any]:
        return dict(self.screen.turn(self.name))

    async def press(self, verb: str, **body: Any) -> tuple[int, Any]:
        return await self.person.press(self.talk, self.name, verb, **body)

    async def decide(self, consent: str, call_id: str = "") -> tuple[int, Any]:
        which = call_id or self.turn["consent"]
        return await self.press("consent", call=which, consent=consent)

    async def until_asked(self, *, but: str = "") -> str:
        """Wait for a question other than `but`, and for the text above, which comes by itself."""
        await until(lambda: self.turn.get("consent", "") not in ("", but), why=self.screen.__str__)
        await until(lambda: self.turn["answer"], why=self.screen.__str__)
        return str(self.turn["consent"])

    async def until_done(self) -> None:
        await until(lambda: self.screen.is_done(self.name), why=self.screen.__str__)


@asynccontextmanager
async def waiting(
    store: Store, tool: FakeTool, *, seconds: float = 600.0
) -> AsyncIterator[Waiting]:
    talk = new_talk()
    async with (
        asking_worker(store, *ROUNDS, tools=[tool], seconds=seconds) as model,
        serving(store, "web", variables=web_variables()) as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        one = Waiting(person, talk, await person.ask(talk, "Make a ticket."), screen, model)
        await one.until_asked()
        yield one


async def test_a_call_is_shown_on_every_page_until_one_of_them_allows_it(own_store: Store) -> None:
    tool = FakeTool()
    async with waiting(own_store, tool) as one, one.person.page(one.talk) as later:
        first, second = one.turn, dict(later.turn(one.name))
        status, _ = await one.decide("allow")
        await one.until_done()
        await until(lambda: later.is_done(one.name), why=later.__str__)
        await until(lambda: later.turn(one.name) == one.turn, why=later.__str__)
        ended = one.turn

    asks = [(each["state"], each["answer"], each["note"]) for each in (first, second)]
    assert asks == [("running", "Let me see.", QUESTION)] * 2
    assert first["consent"] == second["consent"]
    assert (status, len(tool.runs)) == (202, 1)
    assert (ended["answer"], ended["consent"]) == ("Let me see.\n\nIt is done.", "")
    assert ended["below"] == "(Steps: Calling `make_ticket` on `tracker`: done.)"


async def test_other_pages_see_a_press_before_any_worker_goes_on(own_store: Store) -> None:
    talk = new_talk()
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        async with asking_worker(own_store, *ROUNDS, tools=[FakeTool()]) as model:
            name = await person.ask(talk, "Make a ticket.")
            one = Waiting(person, talk, name, screen, model)
            await one.until_asked()
        await one.decide("allow")
        await until(lambda: not one.turn["consent"], why=screen.__str__)

        assert (one.turn["answer"], one.turn["note"]) == ("Let me see.", "")


async def test_a_denied_call_is_not_made(own_store: Store) -> None:
    tool = FakeTool()
    async with waiting(own_store, tool) as one:
        await one.decide("deny")
        await one.until_done()

    assert tool.runs == []
    assert one.turn["below"] == "(Steps: Calling `make_ticket` on `tracker`: denied.)"


async def test_a_press_that_comes_twice_or_late_gets_a_calm_sentence(own_store: Store) -> None:
    tool, late = FakeTool(may=lambda: False), FakeTool()
    async with waiting(own_store, tool) as one:
        which = one.turn["consent"]
        await one.decide("allow")
        twice = await one.decide("deny", which)
        await until(lambda: tool.runs)
        await one.press("stop")
        await one.until_done()
        after = await one.decide("deny", which)
    await own_store.redis.flushdb()
    async with waiting(own_store, late, seconds=2.0) as one:
        which = one.turn["consent"]
        await one.until_done()
        too_late = await one.decide("allow", which)

    assert [twice, after, too_late] == [(409, {"error": NOT_WAITING})] * 3
    assert late.runs == []


async def test_nobody_else_and_nothing_else_allows_a_call(own_store: Store) -> None:
    tool = FakeTool()
    async with (
        waiting(own_store, tool) as one,
        browser(one.person.address) as other,
    ):
        which = one.turn["consent"]
        stranger = await other.press(one.talk, one.name, "consent", call=which, consent="allow")
        elsewhere, _ = await one.decide("allow", "Aaaaaaaa0")
        wrong = [
            await one.press("consent", **body)
            for body in (
                {"call": which, "consent": "late"},
                {"call": which, "consent": ""},
                {"consent": "allow"},
                {"call": "no id", "consent": "allow"},
            )
        ]
        still = one.turn["consent"]

    assert stranger == (410, {"error": NotRemembered.apology})
    assert elsewhere == 409
    assert [status for status, _ in wrong] == [400] * 4
    assert (still, tool.runs) == (which, [])


@pytest.mark.parametrize("verb", ["stop", "edit", "delete"])
async def test_an_answer_that_waits_is_stopped_edited_and_deleted_as_any(
    own_store: Store, verb: str
) -> None:
    tool = FakeTool()
    async with waiting(own_store, tool) as one:
        first = one.turn["consent"]
        one.model.rounds = (["Two.", call(arguments='{"title": "Lamp"}')], ["Well."])
        await one.press(verb, **({"text": "Another."} if verb == "edit" else {}))
        if verb == "edit":
            await one.until_asked(but=first)
        elif verb == "stop":
            await one.until_done()
        else:
            await until(lambda: one.name not in one.screen.turns, why=one.screen.__str__)
        # What was asked before is no question any more.
        late, _ = await one.decide("allow", first)

    assert late in (409, 410)
    assert tool.runs == []
