"""What people chose for a place: stored field by field, resolved by scope, kept with each turn."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.access.preferences import InvalidPreference, ModelChoice, PreferenceStore, Scope, resolved
from bot.domain import Json, Message, Preferences, ThreadKey, Turn
from bot.errors import AnswerCut
from bot.intake.addressed import Facts
from bot.intake.intake import Intake
from bot.store import Store
from bot.text.context import PERSONA, marked
from bot.turns.records import History
from config.persona_files import MOST_PERSONA
from tests.support.at_work import (
    ANN,
    BOB,
    KEEP,
    all_ended,
    answer,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, is_for_bot

KEY = ThreadKey("console", "T1", "C1", "t1")
MODELS = (ModelChoice("small/one", "Fast"), ModelChoice("large/one", "Clever"))


def preferences_of(store: Store) -> PreferenceStore:
    return PreferenceStore(store=store, models=MODELS, max_tokens=1000)


async def choose(
    store: Store, scope: Scope, changes: Mapping[str, Json], *, thread: ThreadKey = KEY
) -> Preferences:
    return await preferences_of(store).change(thread, scope, changes, by="ann")


async def holding(store: Store, thread: ThreadKey = KEY) -> Preferences:
    return resolved(await preferences_of(store).read(thread))


async def test_a_thread_is_over_its_channel_over_its_server_field_by_field(store: Store) -> None:
    await choose(store, "server", {"model": "large/one", "temperature": 0.1, "max_tokens": 100})
    await choose(store, "channel", {"model": "small/one", "temperature": 0.2})
    await choose(store, "thread", {"temperature": 0})

    found = await holding(store)

    assert found == Preferences(model="small/one", temperature=0.0, max_tokens=100)


async def test_threads_inherit_from_their_own_channel_and_server_only(store: Store) -> None:
    await choose(store, "channel", {"persona": "A pirate."})
    await choose(store, "server", {"model": "Fast"})

    others = [
        await holding(store, replace(KEY, thread="t2")),
        await holding(store, replace(KEY, channel="C")),
        await holding(store, replace(KEY, workspace="T")),
    ]

    assert others == [
        Preferences(persona="A pirate.", model="small/one"),
        Preferences(model="small/one"),
        Preferences(),
    ]


@pytest.mark.parametrize("empty", [None, "", []])
async def test_a_choice_is_taken_back_and_leaves_nothing(store: Store, empty: Json) -> None:
    await choose(store, "channel", {"model": "Fast", "people": ["u1"]})

    await choose(store, "channel", {"model": empty, "people": empty})

    assert await holding(store) == Preferences()
    assert await store.redis.keys(f"{store.key('preferences')}*") == []


async def test_a_persona_taken_back_leaves_no_name(store: Store) -> None:
    await choose(store, "thread", {"persona": "Be kind."})

    await choose(store, "thread", {"persona": ""})

    assert await store.redis.keys(f"{store.key('preferences')}*") == []


async def test_the_longest_answer_of_all_may_be_chosen(store: Store) -> None:
    assert (await choose(store, "thread", {"max_tokens": 1000})).max_tokens == 1000


async def test_what_is_chosen_never_expires(store: Store) -> None:
    await choose(store, "thread", {"model": "Fast"})

    keys = await store.redis.keys(f"{store.key('preferences')}*")

    assert [await store.command("TTL", str(name)) for name in keys] == [-1, -1]


async def test_fifty_changes_at_once_are_all_kept(store: Store) -> None:
    kinds: list[Mapping[str, Json]] = [
        {"model": "Clever"},
        {"persona": "Be kind."},
        {"temperature": 1.5},
        {"max_tokens": 7},
        {"follow": "all"},
    ]
    await choose(store, "channel", {"roles": ["r1"]})

    async def make_ten_changes(person: int) -> None:
        for number in range(10):
            await choose(store, "channel", kinds[(person + number) % 5])

    await asyncio.gather(*map(make_ten_changes, range(5)))

    found = (await preferences_of(store).read(KEY))["channel"]
    assert found == Preferences(
        model="large/one",
        persona="Be kind.",
        temperature=1.5,
        max_tokens=7,
        follow="all",
        roles=("r1",),
    )


@pytest.mark.parametrize(
    ("scope", "changes"),
    [
        ("thread", {"model": "other/one"}),
        ("thread", {"temperature": 2.1}),
        ("thread", {"temperature": math.nan}),
        ("thread", {"temperature": True}),
        ("thread", {"max_tokens": 1001}),
        ("thread", {"max_tokens": 0}),
        ("thread", {"max_tokens": 1.5}),
        ("thread", {"persona": "x" * (MOST_PERSONA + 1)}),
        ("thread", {"persona": "\0\x1b"}),
        ("thread", {"persona": 7}),
        ("thread", {"follow": "never"}),
        ("thread", {"follow": ["all"]}),
        ("thread", {"people": ["u1"]}),
        ("thread", {"unknown": 1}),
        ("channel", {"server_tokens_per_day": 1}),
        ("channel", {"people": "u1"}),
        ("channel", {"people": [""]}),
        ("channel", {"people": [7]}),
        ("channel", {"people": [str(n) for n in range(501)]}),
        ("channel", {"questions_per_day": -1}),
    ],
)
async def test_what_is_invalid_changes_nothing(
    store: Store, scope: Scope, changes: Mapping[str, Json]
) -> None:
    with pytest.raises(InvalidPreference) as refused:
        await choose(store, scope, {"model": "Fast", **changes})

    assert refused.value.apology.endswith(".")
    assert await holding(store) == Preferences()


async def test_a_persona_has_no_control_characters_and_whole_ones_only(store: Store) -> None:
    text = " Be\x1b[31m a\tpirate.\r\n\u202eAlways.\u2028\x00Ha \ud83d"

    found = await choose(store, "thread", {"persona": text})

    assert found.persona == "Be[31m a pirate.\nAlways.\nHa \ufffd"


async def test_where_there_is_no_server_nothing_can_be_chosen_for_it(store: Store) -> None:
    direct = ThreadKey("discord", "dm", "1", "1")

    with pytest.raises(InvalidPreference):
        await choose(store, "server", {"model": "Fast"}, thread=direct)

    assert "server" not in await preferences_of(store).read(direct)


async def test_fields_of_a_newer_version_stay_and_broken_ones_count_as_none(store: Store) -> None:
    name = store.key("preferences", str(KEY))
    await store.command(
        *("HSET", name, "newer", '"stays"', "temperature", '"hot"', "max_tokens", "{"),
        *("model", '"gone/one"', "persona", "[" * 100_000),
    )

    await choose(store, "thread", {"follow": "all"})

    assert await holding(store) == Preferences(model="gone/one", follow="all")
    assert await store.command("HGET", name, "newer") == '"stays"'


def intake_of(store: Store) -> Intake:
    return Intake(
        queue=make_queue(store),
        history=History(store=store, keep_seconds=KEEP),
        preferences=preferences_of(store),
    )


def asked(number: int = 1, key: ThreadKey = KEY) -> Turn:
    return make_turn(number, key=key)


async def test_a_turn_has_the_preferences_of_its_admission_also_after_a_crash(store: Store) -> None:
    chosen: Mapping[str, Json] = {"model": "Clever", "temperature": 0.5, "max_tokens": 9}
    await choose(store, "server", {**chosen, "people": ["u1"], "follow": "all"})
    await choose(store, "channel", {"persona": "Nobody.", "temperature": 0.7})
    await choose(store, "thread", {"persona": 'Say "Ahoi" \N{PARROT}.\nAlways.'})
    await intake_of(store).ask(asked())
    await choose(store, "server", {"model": None, "temperature": 2})
    await choose(store, "thread", {"persona": "Another.", "max_tokens": 3})

    taken = [await take(make_queue(store))]
    await expire_all(store)
    taken.append(await take(make_queue(store, "w2")))

    assert [one.turn.preferences for one in taken] == [
        Preferences(
            model="large/one",
            temperature=0.7,
            max_tokens=9,
            persona='Say "Ahoi" \N{PARROT}.\nAlways.',
        )
    ] * 2


async def test_follow_is_that_of_the_thread(store: Store) -> None:
    intake, other = intake_of(store), replace(KEY, thread="t2")
    for key in (KEY, other):
        await intake.ask(asked(key is KEY, key))
        await is_for_bot(intake, Facts(), key, BOB)
    await choose(store, "channel", {"follow": "all"})
    await choose(store, "thread", {"follow": "mention"})

    answered = [await is_for_bot(intake, Facts(), key, ANN) for key in (KEY, other)]

    assert answered == [False, True]


class ChosenModel(FakeModel):
    """Has the name of the model that is chosen."""

    def chosen(self, preferences: Preferences) -> FakeModel:
        return replace(super().chosen(preferences), name=preferences.model)


async def test_the_answer_is_asked_for_with_the_turns_preferences(store: Store) -> None:
    platform, model = FakePlatform(), ChosenModel()
    await choose(store, "thread", {"model": "Clever", "persona": "A pirate."})

    async with working(make_worker(store, platform, model)):
        await intake_of(store).ask(asked())
        await all_ended(store)

    assert model.prompts[-1][0] == Message("system", "Be brief.", (marked(PERSONA, "A pirate."),))
    assert model.preferences[-1] == Preferences(model="large/one", persona="A pirate.")
    (exchange,) = await History(store=store, keep_seconds=KEEP).read(KEY)
    assert exchange.model == "large/one"


@pytest.mark.parametrize("again", ["regenerate", "edit", "continue", "edit while it waits"])
async def test_an_answer_anew_takes_the_preferences_of_that_moment(
    store: Store, again: str
) -> None:
    platform, model = FakePlatform(), FakeModel()
    model.error = AnswerCut("long") if again == "continue" else None
    intake = intake_of(store)
    await choose(store, "channel", {"persona": "Old."})
    await intake.ask(asked())
    if again != "edit while it waits":
        async with working(make_worker(store, platform, model)):
            await all_ended(store)
    await choose(store, "channel", {"persona": "New."})

    match again:
        case "regenerate":
            await intake.answers.regenerate("console:1", person_id=ANN.id, press_id="p1")
        case "continue":
            await intake.answers.continue_answer(
                "console:1", person_id=ANN.id, press_id="console:p1"
            )
        case _:
            await intake.ask(replace(asked(), text="Other?"), edited_at=2000.0)
    await answer(store, platform, model)

    assert model.prompts[-1][0].context == (marked(PERSONA, "New."),)


async def test_a_choice_that_was_taken_back_is_in_no_answer_anew(store: Store) -> None:
    intake, model = intake_of(store), FakeModel()
    await choose(store, "channel", {"persona": "Old."})
    await intake.ask(asked())
    await answer(store, FakePlatform(), model)

    await choose(store, "channel", {"persona": None})
    await intake.answers.regenerate("console:1", person_id=ANN.id, press_id="p1")
    await answer(store, FakePlatform(), model)

    assert [prompt[0].context for prompt in model.prompts] == [(marked(PERSONA, "Old."),), ()]


async def test_a_change_is_logged_with_the_old_and_the_new_value_but_no_words(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = PreferenceStore(store=store)
    await chosen.change(KEY, "server", {"tokens_per_day": 5, "people": ["u1"]}, by="u9")
    with caplog.at_level("INFO"):
        changes: dict[str, Json] = {"tokens_per_day": 7, "people": None, "persona": "yodel"}
        await chosen.change(KEY, "server", changes, by="u9")

    place = f"place={KEY.platform}:{KEY.workspace}:: by=u9"
    digest = hashlib.sha256(b"yodel").hexdigest()[:16]
    assert set(caplog.messages) == {
        f"changed {place} field=tokens_per_day before=5 after=7",
        f"changed {place} field=people before=u1 after=",
        f"changed {place} field=persona before= after=5:{digest}",
    }


async def test_two_changes_at_once_are_logged_each_with_the_value_before_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = PreferenceStore(store=store)
    with caplog.at_level("INFO"):
        changes = (chosen.change(KEY, "server", {"max_tokens": it}, by="u9") for it in range(1, 9))
        await asyncio.gather(*changes)

    found = [re.search("before=([0-9]*) after=([0-9]*)", line) for line in caplog.messages]
    after = {one[1]: one[2] for one in found if one}
    # Each value follows another one: they are one chain.
    last = str((await holding(store)).max_tokens)
    assert len(after) == 8
    assert {*after, last} == {"", *after.values()}
