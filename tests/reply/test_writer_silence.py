"""A model that is silent for long: the reply shows a sign of life."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from bot.concurrency import Backoff
from bot.domain import EditBudget, Message, Page, ReadingFiles, Retrying, StepNote, StepNotes
from bot.errors import ModelBusy, ModelUnavailable, WriteFailed, WriteRefused
from bot.reply.draft import BUSY, DOING, PENDING, READING, STOPPED, WAITING
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.model import open_retrying
from tests.support.replies import TEXT, WORDS, Saved, answer, make_reply, spoken

SOON = ReplyTiming(silence=0.02, first_silence=0.02, busy_silence=0.02)


@dataclass
class Watched(FakeSurface):
    """Tells whether it shows a sign of life, and counts how often the writer looks at a page."""

    looks: int = 0

    def signed(self) -> bool:
        return WAITING in self.text or BUSY in self.text

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        self.looks += 1
        return super().budget(page, new=new)


async def test_a_sign_stands_below_the_words_until_the_next(store: Store) -> None:
    surface, saved = Watched(), Saved()

    shown = await make_reply(store, surface, saved=saved, timing=SOON).stream(
        spoken("Well", surface.signed, ", yes", lambda: "yes\n\n" in surface.text, ".")
    )

    assert surface.states == [
        "Well",
        f"Well\n\n{WAITING}",
        "Well, yes",
        f"Well, yes\n\n{WAITING}",
        "Well, yes.",
    ]
    assert shown.said == shown.text == "Well, yes."
    assert not any(WAITING in text for text in saved.texts)


async def test_a_silence_costs_one_write_and_no_time(store: Store) -> None:
    surface = Watched()

    await answer(store, surface, "Well", surface.signed, 0.3, timing=SOON)

    assert surface.states == ["Well", f"Well\n\n{WAITING}", "Well"]
    assert surface.looks < 20


async def test_a_model_that_goes_on_gets_no_sign(store: Store) -> None:
    surface = FakeSurface()

    # It speaks for longer than the silence, but is never silent for so long.
    await make_reply(store, surface, timing=ReplyTiming(silence=1.0)).stream(
        FakeModel(WORDS, pause=0.03).stream([])
    )

    assert not any(WAITING in state for state in surface.states)


@pytest.mark.parametrize(
    ("timing", "shows_work", "signs"),
    [
        (ReplyTiming(silence=0.02), True, []),
        (ReplyTiming(first_silence=0.02), True, [WAITING]),
        # Nothing else shows that the bot works.
        (ReplyTiming(first_silence=3600.0, unseen_silence=0.02), False, [WAITING]),
    ],
)
async def test_before_the_first_word_the_silence_is_another(
    store: Store, timing: ReplyTiming, shows_work: bool, signs: list[str]
) -> None:
    surface, saved = Watched(shows_work=shows_work), Saved()
    parts = (surface.signed, "Well.", 0.1) if signs else (0.1, "Well.")

    shown = await answer(store, surface, *parts, saved=saved, timing=timing)

    assert surface.states == [*signs, "Well."]
    assert (shown.said, shown.message_ids) == ("Well.", ("m1",))
    assert not any(WAITING in text for text in saved.texts)


class Scarce(Watched):
    def budget(self, page: Page, *, new: bool) -> EditBudget:
        return EditBudget("test:scarce", writes=10, seconds=3600.0)


@pytest.mark.parametrize(("shows_work", "signs"), [(True, []), (False, [WAITING])])
async def test_beside_the_sign_of_the_platform_ours_takes_only_a_spare_slot(
    store: Store, shows_work: bool, signs: list[str]
) -> None:
    surface, budgets = Scarce(shows_work=shows_work), EditBudgets(store=store)
    budget = surface.budget(Page(0, "", final=False), new=True)
    while await budgets.spare(budget):
        pass
    timing = ReplyTiming(first_silence=0.02, unseen_silence=0.02, sign_pause=0.02)
    parts = (surface.signed, "Well.") if signs else (0.3, "Well.")

    await answer(store, surface, *parts, budgets=budgets, timing=timing)

    assert surface.states == [*signs, "Well."]


@pytest.mark.parametrize("said", ["", "I look."])
@pytest.mark.parametrize("outcome", ["", "denied"])
async def test_buttons_of_a_question_that_was_answered_do_not_wait_for_a_spare_slot(
    store: Store, said: str, outcome: str
) -> None:
    asked = Page(0, f"{said}\n\nMay I?".strip(), final=False, sign="May I?", consent="c1")
    surface, budgets = Scarce(screen={"m1": asked}), EditBudgets(store=store)
    while await budgets.spare(surface.budget(asked, new=False)):
        pass

    def has_no_buttons() -> bool:
        return not surface.screen["m1"].consent

    step = StepNotes((StepNote("c1", "Calling `create_ticket`", outcome),))
    rest = (step, has_no_buttons, "It is done.")
    parts = (said, *rest) if said else rest
    await answer(store, surface, *parts, message_ids=["m1"], older=said, budgets=budgets)

    assert surface.screen["m1"].last


async def test_what_is_read_is_said_soon_although_the_platform_shows_work(store: Store) -> None:
    surface, saved = Watched(), Saved()
    timing = ReplyTiming(first_silence=3600.0, unseen_silence=0.02)
    reading, sign = ReadingFiles(("a.txt", "b.txt")), READING.format(names="`a.txt`, `b.txt`")

    shown = await make_reply(store, surface, saved=saved, timing=timing).stream(
        spoken(reading, lambda: sign in surface.states, ReadingFiles(()), "Well.")
    )

    assert [one for one in surface.states if one != WAITING] == [sign, "Well."]
    assert shown.said == "Well."
    assert not any(sign in text for text in saved.texts)


@pytest.mark.parametrize("shows_steps", [False, True])
async def test_a_step_is_said_at_once_unless_the_platform_shows_it(
    store: Store, shows_steps: bool
) -> None:
    surface = Watched(shows_steps=shows_steps)
    searching = StepNote("c1", "Searching the web")
    begun, ended = StepNotes((searching,)), StepNotes((replace(searching, outcome="done"),))
    sign = DOING.format(what=searching.what)

    def seen() -> bool:
        return sign in surface.states if not shows_steps else bool(surface.steps)

    timing = ReplyTiming(first_silence=3600.0)
    await make_reply(store, surface, timing=timing).stream(spoken(begun, seen, ended, "Well."))

    assert surface.steps == ["Searching the web", ""]
    assert (sign in surface.states) is not shows_steps
    assert surface.text == "Well.\n\n(Steps: Searching the web: done.)"


async def test_a_model_that_is_asked_again_is_said_to_be_busy(store: Store) -> None:
    surface, saved = Watched(), Saved()
    timing = ReplyTiming(first_silence=3600.0, busy_silence=0.02)

    shown = await make_reply(store, surface, saved=saved, timing=timing).stream(
        spoken(Retrying(ModelBusy("full")), surface.signed, "Well.")
    )

    assert surface.states == [BUSY, "Well."]
    assert shown.said == "Well."
    assert not any(BUSY in text for text in saved.texts)


async def test_a_failing_model_is_not_asked_again_if_another_turn_has_waited(store: Store) -> None:
    surface, error = FakeSurface(), ModelBusy("full")

    async def before_retry(failure: Exception) -> None:
        raise failure

    shown = await answer(store, surface, Retrying(error), "Never read.", before_retry=before_retry)

    assert (surface.text, shown.outcome) == (error.apology, "failed")


@pytest.mark.parametrize("estimated", [None, 1.0])
async def test_a_model_that_loads_is_waited_for_with_a_sign(
    estimated: float | None, store: Store
) -> None:
    surface = FakeSurface()
    async with ModelEmulator() as emulator, open_retrying(emulator) as model:
        if estimated:
            body = {"error": "Model mistral is currently loading", "estimated_time": estimated}
            emulator.fail("completions", status=503, body=body)
        else:
            emulator.fail("completions", status=503, retry_after=1)
        prompt = [Message("user", "What is it?")]

        shown = await make_reply(store, surface, timing=SOON).stream(model.stream(prompt))

    assert surface.states[0] in (WAITING, BUSY)
    assert surface.text == shown.said == "You said: What is it?"


async def test_a_sign_stands_below_a_broken_answer_until_it_is_there_anew(store: Store) -> None:
    surface = FakeSurface()
    async with ModelEmulator() as emulator, open_retrying(emulator) as model:
        emulator.fail("completions", "drop", at_delta=2)
        emulator.fail("completions", status=503, retry_after=1)
        prompt = [Message("user", "What is it?")]

        shown = await make_reply(store, surface, timing=SOON).stream(model.stream(prompt))

    assert f"You said: What i\n\n{BUSY}" in surface.states
    assert surface.text == shown.said == "You said: What is it?"


async def test_a_sign_gives_way_to_the_apology_or_the_stop(store: Store) -> None:
    failing, stopped, stop = Watched(), Watched(), asyncio.Event()

    await answer(store, failing, failing.signed, ModelUnavailable("cut"), timing=SOON)
    await answer(store, stopped, "Well", stopped.signed, stop.set, stop=stop, timing=SOON)

    assert failing.states == [WAITING, ModelUnavailable.apology]
    assert stopped.states == ["Well", f"Well\n\n{WAITING}", f"Well\n\n{STOPPED}"]


async def test_a_second_try_shows_its_silence_in_one_write(store: Store) -> None:
    surface, saved = Watched(limit=100), Saved()
    older = TEXT[:150]
    first = await answer(store, surface, older)
    before = list(surface.states)
    surface.states.clear()

    ids = first.message_ids
    reply = make_reply(store, surface, message_ids=ids, older=older, saved=saved, timing=SOON)
    await reply.stream(spoken(surface.signed, TEXT))

    assert len(before) == 2
    assert saved.texts[0] == older
    assert surface.states[0] == f"{before[1]}\n\n{WAITING}"
    assert surface.text.split() == TEXT.split()


async def test_a_former_answer_stands_above_the_sign(store: Store) -> None:
    surface = Watched(limit=100)
    first = await answer(store, surface, TEXT)
    before = [page.text for page in surface.screen.values()]
    pending = [PENDING] * (len(before) - 1)
    surface.states.clear()

    ids, timing = first.message_ids, ReplyTiming(first_silence=0.02)
    reply = make_reply(store, surface, message_ids=ids, replaced=TEXT, timing=timing)
    shown = await reply.stream(
        spoken(surface.signed, "New", lambda: surface.states[2:] == pending, ".")
    )

    assert surface.states == [f"{before[-1].rstrip()}\n\n{WAITING}", "New", *pending, "New."]
    assert shown.said == "New."


async def test_what_is_refused_after_a_sign_leaves_the_words_alone(store: Store) -> None:
    refused = WriteRefused("moderated")
    surface = Watched(errors=[None, None, refused, refused])

    shown = await answer(store, surface, "Half", surface.signed, " an oath", timing=SOON)

    assert surface.text == f"Half\n\n{WriteRefused.apology}"
    assert shown.said == "Half"


@dataclass
class LosesTheSign(Watched):
    """Shows a sign of life, and loses the answer to that write."""

    async def edit(self, message_id: str, page: Page) -> None:
        await super().edit(message_id, page)
        if WAITING in page.text:
            raise WriteFailed("the answer is lost")


async def test_a_sign_whose_answer_was_lost_is_taken_back(store: Store) -> None:
    surface = LosesTheSign()
    timing = ReplyTiming(silence=0.02, repeat=Backoff(first=0.02, longest=30.0))

    await make_reply(store, surface, timing=timing).stream(
        spoken("Well", surface.signed, "\n", lambda: surface.states.count("Well") == 2, "so")
    )

    assert surface.text == "Well\nso"
