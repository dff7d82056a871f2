"""Commands in words do what buttons and forms do elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.commands.handlers import FORGET_QUESTION, FORGOTTEN, Call, MayNotChange, NotOffered, Scope
from bot.commands.words import Words
from bot.domain import FORM, LINK, Preferences, Standing
from bot.errors import HasEnded, NotTheAsker
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING
from bot.intake.intake import Intake
from bot.store import Store
from bot.tools.questions import AnswerRefused, InputField, Question, write_question
from tests.commands.test_handlers import ANN, KEY, MODELS, OWNER, VISITOR, chosen
from tests.support.at_work import make_turn
from tests.support.fakes import FakeQueue, NotedIntake

TOWN = InputField("town", "Town", "of the hotel", "string", is_required=True)
STARS = InputField(
    "stars", "Stars", "", "string", is_required=False, options=(("4", "four"), ("5", "five"))
)


class Queue(FakeQueue):
    """With a call of Ann's turn that waits for her, or a question with these fields."""

    def __init__(self, call_id: str, *fields: InputField) -> None:
        super().__init__()
        turn = make_turn(key=KEY, person=ANN)
        self.turns.append(turn)
        self.first_there, self.call_id = turn.id, call_id
        self.asks = write_question(Question("key", "Where to?", fields))

    async def standings(self, *turn_ids: str, person_id: str) -> list[Standing]:
        return [Standing(it, "why?", 0.0, "waiting", consent=self.call_id) for it in turn_ids]


async def managing(call: Call) -> Call:
    return replace(call, manages_server=call.person == ANN)


def words_of(of: Intake | FakeQueue) -> Words:
    intake = of if isinstance(of, Intake) else of.intake
    scopes: Mapping[str, Scope] = {"room": "channel", "house": "server"}
    return Words(intake, written="`+{name}`", scopes=scopes, rights=managing)


async def test_help_names_the_ways_to_ask_and_how_a_command_is_written(store: Store) -> None:
    words = words_of(NotedIntake(store))

    shown, same = [await words.run(it, OWNER, ways=["Ask me."]) for it in ("HELP", " ")]

    assert shown == same
    assert shown.startswith("- Ask me.\n")
    assert "\n`+forget-me`: Forget everything" in shown


async def test_an_unknown_command_names_the_help_and_looks_up_no_rights(store: Store) -> None:
    words = Words(NotedIntake(store), written="`+{name}`", scopes={}, rights=_no_rights)

    assert await words.run("dance now", OWNER) == "I do not know this command. Write `+help`."


@pytest.mark.parametrize(
    ("line", "scope", "persona"),
    [
        ("persona briefly", "thread", "briefly"),
        ("Persona room briefly", "channel", "briefly"),
        ("persona\nroom\nbriefly\nplease", "channel", "briefly\nplease"),
        ("persona house briefly", "server", "briefly"),
        ("persona server briefly", "server", "briefly"),
        ("persona rooms and houses", "thread", "rooms and houses"),
    ],
)
async def test_a_choice_may_begin_with_where_it_applies(
    store: Store, line: str, scope: Scope, persona: str
) -> None:
    intake = NotedIntake(store)

    await words_of(intake).run(line, OWNER)

    assert (await chosen(intake, scope)).persona == persona


async def test_in_one_place_no_word_is_a_scope(store: Store) -> None:
    intake = NotedIntake(store)
    words = Words(intake, written="/{name}", scopes={}, rights=None)

    await words.run("persona server side", OWNER)

    assert (await chosen(intake, "thread")).persona == "server side"


async def test_what_people_say_of_themselves_begins_with_no_scope(store: Store) -> None:
    words = words_of(NotedIntake(store))

    await words.run("me room service is my job", OWNER)

    assert "\nroom service is my job\n" in await words.run("me", OWNER)


async def test_a_setting_is_chosen_and_cleared_by_its_name(store: Store) -> None:
    intake = NotedIntake(store)
    words, values = words_of(intake), list[Preferences]()

    for line in ("settings room temperature 0.5", "settings room temperature Default"):
        assert await words.run(line, OWNER) == "Saved for this channel: Temperature."
        values.append(await chosen(intake, "channel"))
    await words.run("settings house people 7 8", OWNER)

    assert values == [Preferences(temperature=0.5), Preferences()]
    assert (await chosen(intake, "server")).people == ("7", "8")


async def test_settings_show_what_is_chosen_and_the_names(store: Store) -> None:
    words = words_of(NotedIntake(store, models=MODELS))
    await words.run("settings model org/large", OWNER)

    shown = await words.run("settings", OWNER)
    unknown = await words.run("settings room colour red", OWNER)
    alone = await words.run("settings", replace(OWNER, scopes={"thread": "this thread"}))

    assert shown.startswith("For this thread:\n- Model: Large\n")
    assert "Write `+settings [room|house] NAME VALUE`, with one of these names: `model`" in shown
    assert "`people`" not in shown  # they are not of a thread
    assert "`people`" in unknown
    assert "`roles`" not in unknown  # nobody can write them
    assert "`+settings NAME VALUE`" in alone


async def test_settings_that_may_not_be_changed_are_refused(store: Store) -> None:
    intake = NotedIntake(store)
    words = words_of(intake)

    for line in ("settings room temperature 1", "settings room nonsense"):
        with pytest.raises(MayNotChange):
            await words.run(line, VISITOR)
    with pytest.raises(NotOffered, match="only choose for this conversation"):
        await words.run("settings house follow all", replace(OWNER, scopes={"thread": "here"}))

    assert "with one of these names" not in await words.run("settings", VISITOR)
    assert await chosen(intake, "channel") == Preferences()


async def test_who_is_sure_is_forgotten() -> None:
    queue = FakeQueue()
    words = words_of(queue)

    asked = [await words.run(it, OWNER) for it in ("forget-me", "forget-me no")]
    before, said = [*queue.people], await words.run("forget-me\nYES", OWNER)

    assert asked == [f"{FORGET_QUESTION}\nIf so, write: `+forget-me yes`"] * 2
    assert before == []
    assert said == FORGOTTEN
    assert queue.people == [ANN.id]


@pytest.mark.parametrize(
    ("line", "call_id"),
    [("allow", "call1"), ("ALWAYS", "call1"), ("deny", f"{FORM}1"), ("done", f"{LINK}1")],
)
async def test_a_call_is_allowed_or_denied_in_a_word(line: str, call_id: str) -> None:
    queue = Queue(call_id)

    said = await words_of(queue).run(line, OWNER)

    assert said == "Thank you, I go on."
    assert [one[1:3] for one in queue.decided] == [(call_id, line.lower())]


async def test_only_the_asker_allows_for_always_and_who_manages_once() -> None:
    queue = Queue("call1")
    words = words_of(queue)

    with pytest.raises(NotTheAsker):
        await words.run("allow", VISITOR)
    said = await words.run("always", replace(VISITOR, manages_messages=True))

    assert said == ALLOWED_ONCE
    assert [one[2] for one in queue.decided] == ["allow"]


@pytest.mark.parametrize(("line", "call_id"), [("allow", ""), ("done", "call1"), ("answer", "c")])
async def test_a_word_that_nothing_waits_for_is_refused(line: str, call_id: str) -> None:
    queue = Queue(call_id)

    with pytest.raises(HasEnded, match=NOT_WAITING):
        await words_of(queue).run(line, OWNER)

    assert queue.decided == []


async def test_a_form_is_told_in_lines_and_answered_in_lines() -> None:
    queue = Queue(f"{FORM}1", TOWN, STARS)
    words = words_of(queue)

    told = await words.run("answer", OWNER)
    for lines in ("Bonn", " Bonn \n 2 ", "\nBonn\n-\nmore"):
        assert await words.run(f"answer {lines}", OWNER) == "Thank you, I go on."
    with pytest.raises(AnswerRefused):
        await words.run("answer -\n1", OWNER)

    assert told == (
        "Write `+answer`, and below it one line for each of these, or `-`:\n"
        "- `Town` (`of the hotel`)\n- `Stars` (`1 four, 2 five; may be empty`)"
    )
    assert [json.loads(one) for one in queue.words] == [
        {"town": "Bonn"}, {"town": "Bonn", "stars": "5"}, {"town": "Bonn"}
    ]  # fmt: skip


async def test_a_single_field_takes_several_lines() -> None:
    queue = Queue(f"{FORM}1", TOWN)

    await words_of(queue).run("answer Bonn\non the Rhine", OWNER)

    assert json.loads(queue.words[0]) == {"town": "Bonn\non the Rhine"}


async def _no_rights(call: Call) -> Call:
    raise AssertionError(call)
