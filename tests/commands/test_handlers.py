"""What commands do and answer, the same on every platform."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest

from bot.access.preferences import ModelChoice, PreferenceStore
from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.commands.handlers import (
    COMMANDS,
    Call,
    CommandHandlers,
    HelpContext,
    MayNotChange,
    MissingFeature,
    Scope,
)
from bot.domain import Asker, Exchange, Person, Preferences, Shown, ThreadKey, Turn
from bot.errors import NotAllowed, Refused
from bot.store import Store
from bot.tools.toolset import Listed
from bot.turns.queue import Taken
from tests.support.fakes import NotedIntake, RefusingStore

KEY = ThreadKey("discord", "server", "channel", "thread")
ANN, BOB = Person("1", "Ann"), Person("2", "Bob")
PLACES: Mapping[Scope, str] = {
    "thread": "this thread",
    "channel": "this channel",
    "server": "this server",
}
OWNER = Call(id="discord:1", thread=KEY, person=ANN, scopes=PLACES, in_thread=True, own_thread=True)
VISITOR = replace(OWNER, id="discord:2", person=BOB, own_thread=False)
MANAGER = replace(VISITOR, manages_server=True)
MODELS = (ModelChoice("org/small", "Small"), ModelChoice("org/large", "Large"))


def commands_of(store: Store) -> tuple[CommandHandlers, NotedIntake]:
    intake = NotedIntake(store, models=MODELS)
    return CommandHandlers(intake), intake


async def chosen(intake: NotedIntake, scope: Scope) -> Preferences:
    return (await intake.preferences.read(KEY))[scope]


@pytest.mark.parametrize(
    ("name", "typed", "stored", "sentences"),
    [
        (
            *("model", " large ", "org/large"),
            (
                "From now on Large answers in this thread.",
                "Large answers here. Models: Small, Large.",
                "From now on the default model answers in this thread.",
            ),
        ),
        (
            *("persona", "A pirate.", "A pirate."),
            (
                "From now on I use this persona in this thread.",
                "My persona here:\nA pirate.",
                "I no longer use that persona in this thread.",
            ),
        ),
    ],
)
async def test_a_choice_is_made_shown_and_taken_back(
    store: Store, name: str, typed: str, stored: str, sentences: tuple[str, ...]
) -> None:
    commands, intake = commands_of(store)
    values, said = list[str](), list[str]()

    for argument in (typed, "", " Default"):
        said.append(await commands.run(name, OWNER, argument))
        values.append(getattr(await chosen(intake, "thread"), name))

    assert values == [stored, stored, ""]
    assert all(map(str.startswith, said, sentences))


async def test_without_a_choice_the_defaults_are_shown_and_who_may_choose(store: Store) -> None:
    commands, _ = commands_of(store)

    own, visiting = [await commands.run("model", call) for call in (OWNER, VISITOR)]
    persona = await commands.run("persona", VISITOR, " ")

    who = MayNotChange("thread", "this channel").apology
    assert own.startswith("Small answers here. Models: Small, Large. Write")
    assert visiting == f"Small answers here. Models: Small, Large. {who}"
    assert persona == f"No persona is chosen here.\n{who}"


async def test_models_are_found_by_a_part_of_their_names(store: Store) -> None:
    commands, _ = commands_of(store)

    assert commands.models() == [("org/small", "Small"), ("org/large", "Large")]
    assert commands.models("LAR") == [("org/large", "Large")]
    assert commands.models("none") == []


@pytest.mark.parametrize(
    ("call", "scope", "may"),
    [
        (OWNER, "thread", True),
        (OWNER, "channel", False),
        (VISITOR, "thread", False),
        (replace(VISITOR, manages_channel=True), "thread", True),
        (replace(VISITOR, manages_channel=True), "channel", True),
        (replace(VISITOR, manages_channel=True), "server", False),
        (MANAGER, "server", True),
    ],
)
async def test_a_place_is_changed_by_those_who_manage_it(
    store: Store, call: Call, scope: Scope, may: bool
) -> None:
    commands, intake = commands_of(store)

    with nullcontext() if may else pytest.raises(Refused):
        await commands.run("persona", call, "Be brief.", scope)

    assert ((await chosen(intake, scope)).persona == "Be brief.") is may


async def test_a_person_without_access_to_a_place_changes_nothing_there(store: Store) -> None:
    commands, intake = commands_of(store)
    form = await commands.form(MANAGER, "server", "access")
    await commands.fill_in(MANAGER, "server", "access", {"people": ["7"]}, seen=form.seen)

    with pytest.raises(NotAllowed):
        await commands.run("persona", OWNER, "Be brief.", "thread")
    await commands.run("persona", MANAGER, "Be kind.", "thread")

    assert (await chosen(intake, "thread")).persona == "Be kind."


async def test_one_model_is_no_choice(store: Store) -> None:
    assert PreferenceStore(store=store, models=MODELS[:1]).offered == ()


async def test_what_a_place_does_not_have_is_not_chosen(store: Store) -> None:
    commands, _ = commands_of(store)
    direct = replace(MANAGER, scopes={"thread": "this conversation"})

    with pytest.raises(Refused, match="only choose for this conversation"):
        await commands.run("persona", direct, "Be brief.", "server")


async def test_quiet_and_follow_choose_for_a_thread(store: Store) -> None:
    commands, intake = commands_of(store)

    await commands.run("quiet", OWNER)
    quiet = (await chosen(intake, "thread")).follow
    await commands.run("follow", OWNER)

    assert quiet == "mention"
    assert (await chosen(intake, "thread")).follow == "all"


@pytest.mark.parametrize(
    "call", [replace(OWNER, asker=Asker(direct=True)), replace(OWNER, in_thread=False)]
)
async def test_quiet_is_for_threads_alone(store: Store, call: Call) -> None:
    commands, intake = commands_of(store)

    with pytest.raises(Refused):
        await commands.run("quiet", call)

    assert (await chosen(intake, "thread")).follow == ""


async def test_a_form_shows_what_is_chosen_and_changes_only_what_was_changed(store: Store) -> None:
    commands, intake = commands_of(store)
    await commands.run("persona", MANAGER, "Be brief.", "channel")
    form = await commands.form(MANAGER, "channel", "answers")
    # Meanwhile somebody else chooses.
    await commands.run("persona", MANAGER, "Be long.", "channel")

    changed = {"temperature": "0,7", "model": ("org/large",)}
    filled = {one.name: one.value for one in form.fields} | changed
    said = await commands.fill_in(MANAGER, "channel", "answers", filled, seen=form.seen)

    assert said == "Saved for this channel: Model, Temperature."
    assert await chosen(intake, "channel") == Preferences(
        model="org/large", persona="Be long.", temperature=0.7
    )


async def test_access_and_quotas_are_chosen_and_taken_back(store: Store) -> None:
    commands, intake = commands_of(store)
    form = await commands.form(MANAGER, "server", "access")
    filled = {"people": ["7", "8"], "roles": ("9",), "questions_per_day": "20"}
    await commands.fill_in(MANAGER, "server", "access", filled, seen=form.seen)
    first = await chosen(intake, "server")
    form = await commands.form(MANAGER, "server", "access")

    emptied = {"people": (), "roles": ("9",), "questions_per_day": ""}
    await commands.fill_in(MANAGER, "server", "access", emptied, seen=form.seen)

    assert first == Preferences(people=("7", "8"), roles=("9",), questions_per_day=20)
    assert await chosen(intake, "server") == Preferences(roles=("9",))


async def test_rights_count_when_a_form_is_sent(store: Store) -> None:
    commands, intake = commands_of(store)
    form = await commands.form(MANAGER, "channel", "answers")

    with pytest.raises(Refused):
        await commands.fill_in(
            VISITOR, "channel", "answers", {"persona": "Be brief."}, seen=form.seen
        )
    with pytest.raises(Refused):
        await commands.form(VISITOR, "channel", "answers")

    assert await chosen(intake, "channel") == Preferences()


async def test_the_overview_shows_what_is_chosen_where_and_offers_what_may_be_changed(
    store: Store,
) -> None:
    commands, _ = commands_of(store)
    await commands.run("model", MANAGER, "Large", "server")
    await commands.run("persona", OWNER, "Be\nbrief.")

    own, visiting = await commands.overview(OWNER), await commands.overview(VISITOR)
    managing = await commands.overview(MANAGER)

    assert own.text.splitlines() == [
        *("For this thread:", "- Persona: Be brief.", "For this server:", "- Model: Large")
    ]
    assert own.forms == [("thread", "answers", "Answers in this thread")]
    assert visiting.forms == []
    assert visiting.text == f"{own.text}\n{MayNotChange('thread', 'this channel').apology}"
    assert len(managing.forms) == 5


@pytest.mark.parametrize(
    ("scope", "who"),
    [
        ("thread", "the person who started this conversation, or somebody who manages this room,"),
        ("channel", "somebody who manages this room"),
        ("server", "an admin"),
    ],
)
async def test_who_may_choose_for_a_place_is_told_by_its_name(
    scope: Scope, who: str, store: Store
) -> None:
    commands, _ = commands_of(store)
    visiting = replace(VISITOR, scopes={**PLACES, "channel": "this room"})

    with pytest.raises(MayNotChange) as refused:
        await commands.run("persona", visiting, "Be brief.", scope)

    assert refused.value.apology.startswith(f"Only {who} can change this")


async def test_reset_is_for_the_own_conversation_and_for_managers(store: Store) -> None:
    commands, _ = commands_of(store)

    with pytest.raises(MayNotChange):
        await commands.run("reset", VISITOR)
    said = [await commands.run("reset", call) for call in (OWNER, MANAGER)]

    assert all("forgotten" in one for one in said)


async def test_a_reset_that_is_delivered_twice_forgets_once(store: Store) -> None:
    commands, intake = commands_of(store)
    await ended(intake, "discord:7")
    await commands.run("reset", OWNER)
    assert await intake.history.read(KEY) == []
    await ended(intake, "discord:8")

    assert "forgotten" in await commands.run("reset", OWNER)

    assert [one.turn_id for one in await intake.history.read(KEY)] == ["discord:8"]


async def ended(intake: NotedIntake, turn_id: str) -> None:
    await intake.ask(Turn(turn_id, KEY, ANN, "Why?", {}, 1000.0))
    leases = intake.queue.leases
    taken = await leases.take(["discord"])
    assert isinstance(taken, Taken)
    exchange = Exchange(turn_id, ANN, 1000.0, "Why?", "So.")
    await leases.finish(taken, Shown(("m",), "So.", "So.", outcome="done"), exchange)


async def test_help_names_each_command_what_is_chosen_and_what_is_missing(store: Store) -> None:
    commands, _ = commands_of(store)
    await commands.run("quiet", OWNER)
    here = HelpContext(
        ways=["Mention me."], lacks=[MissingFeature("I cannot see.", "An admin can open my eyes.")]
    )

    text = await commands.help(OWNER, here)

    assert all(f"`/parley {name}`" in text for name in COMMANDS)
    assert "only mentions and replies" in text
    assert "I cannot see. An admin can open my eyes." in text


async def test_help_in_a_dm_names_no_command_that_is_refused_there(store: Store) -> None:
    commands, _ = commands_of(store)
    direct = replace(OWNER, asker=Asker(direct=True))

    text = await commands.help(direct, HelpContext(ways=["Write to me."]))

    assert {name for name in COMMANDS if f"`/parley {name}`" not in text} == {"quiet", "follow"}


async def test_help_needs_no_store(store: Store) -> None:
    commands, _ = commands_of(store)
    assert isinstance(store, RefusingStore)
    store.refused.add(store.key("preferences"))

    text = await commands.help(OWNER, HelpContext(ways=["Mention me."]))

    assert "Mention me." in text


async def test_usage_shows_what_was_used_and_what_is_left(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.access.rules = AccessRules(quota=Quota(questions=20))
    turn = Turn("discord:9", KEY, ANN, "why?", {}, 0.0)
    await intake.ask(turn)

    text = await commands.run("usage", OWNER)

    assert "Your questions today: 1 of 20" in text
    assert "00:00 UTC" in text


async def test_a_person_without_access_may_not_use_commands(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.access.rules = AccessRules(blocked=frozenset({ANN.id}))
    here = HelpContext(ways=["Mention me."])

    for command in (
        *(commands.run(name, OWNER) for name in ("reset", "stop", "quiet", "model", "usage")),
        *(commands.overview(OWNER), commands.help(OWNER, here)),
    ):
        with pytest.raises(NotAllowed):
            await command


async def test_an_admin_of_the_operator_changes_everything(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.access.rules = AccessRules(admins=frozenset({BOB.id}))

    await commands.run("persona", VISITOR, "Be brief.", "server")

    assert (await chosen(intake, "server")).persona == "Be brief."


async def test_only_an_admin_of_the_operator_gives_people_more_than_the_operator(
    store: Store,
) -> None:
    commands, intake = commands_of(store)
    intake.access.rules = AccessRules(admins=frozenset({BOB.id}), quota=Quota(questions=20))
    more = {"questions_per_day": "50", "raised": "true"}

    async def fill_in(call: Call) -> None:
        form = await commands.form(call, "server", "access")
        await commands.fill_in(call, "server", "access", more, seen=form.seen)

    with pytest.raises(Refused, match="20 questions"):
        await fill_in(replace(MANAGER, person=ANN))
    await fill_in(VISITOR)

    assert (await intake.access.usage(KEY, ANN, Asker())).quota.questions == 50
    more["questions_per_day"] = ""
    await fill_in(VISITOR)
    assert await chosen(intake, "server") == Preferences()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("persona", "\ud83d" * 2001, "at most 2,000 characters"),
        ("max_tokens", "9" * 5000, "enter a whole number"),
        ("max_tokens", "1.5", "enter a whole number"),
        ("temperature", "warm", "enter a number"),
        ("temperature", "nan", "from 0 to 2"),
        ("model", ["x" * 400], "no such model. You can choose Small, Large."),
        ("follow", "never", "Choose one of"),
    ],
)
async def test_what_no_form_offers_is_refused_in_a_sentence(
    store: Store, name: str, value: str | list[str], says: str
) -> None:
    commands, intake = commands_of(store)
    form = await commands.form(MANAGER, "server", "answers")

    filled = {"persona": "Be brief.", name: value}
    with pytest.raises(Refused) as refused:
        await commands.fill_in(MANAGER, "server", "answers", filled, seen=form.seen)

    assert says in refused.value.apology
    assert len(refused.value.apology) < 200
    assert await chosen(intake, "server") == Preferences()


async def test_managers_do_not_lock_themselves_out(store: Store) -> None:
    commands, intake = commands_of(store)
    form = await commands.form(MANAGER, "server", "access")
    await commands.fill_in(MANAGER, "server", "access", {"people": ["7"]}, seen=form.seen)

    form = await commands.form(MANAGER, "server", "access")
    await commands.fill_in(MANAGER, "server", "access", {"people": []}, seen=form.seen)

    assert await chosen(intake, "server") == Preferences()


async def test_managers_without_access_change_nothing(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.access.rules = AccessRules(blocked=frozenset({BOB.id}))

    with pytest.raises(NotAllowed):
        await commands.overview(MANAGER)
    with pytest.raises(NotAllowed):
        await commands.run("model", MANAGER, "Large", "server")


async def test_an_input_that_a_form_does_not_send_stays_as_it_is(store: Store) -> None:
    commands, intake = commands_of(store)
    await commands.run("persona", MANAGER, "Be brief.", "channel")
    form = await commands.form(MANAGER, "channel", "answers")

    filled = {"temperature": "0.7"}
    await commands.fill_in(MANAGER, "channel", "answers", filled, seen=form.seen)

    assert await chosen(intake, "channel") == Preferences(persona="Be brief.", temperature=0.7)


async def test_people_in_another_order_are_no_change(store: Store) -> None:
    commands, _ = commands_of(store)
    form = await commands.form(MANAGER, "server", "access")
    await commands.fill_in(MANAGER, "server", "access", {"people": ["7", "8"]}, seen=form.seen)
    form = await commands.form(MANAGER, "server", "access")

    filled = {"people": ["8", "7"]}
    said = await commands.fill_in(MANAGER, "server", "access", filled, seen=form.seen)

    assert said == "Nothing was changed."


async def test_stop_in_a_thread_stops_no_answer_in_another(store: Store) -> None:
    commands, intake = commands_of(store)
    elsewhere = replace(KEY, thread="another")
    await intake.ask(Turn("discord:9", elsewhere, ANN, "why?", {}, 1000.0))

    assert await commands.run("stop", OWNER) == "I am not answering you here right now."
    assert await commands.run("stop", replace(OWNER, in_thread=False)) == "Stopped."


TOOLS = (
    Listed(name="search", does="searches the web"),
    Listed(name="tracker/make_ticket", kind="effects", places=frozenset({"channel"})),
    Listed(name="wiki/edit", kind="keyed", places=frozenset({"another"})),
)


async def allow(store: Store, *names: str) -> None:
    for name in names:
        await store.command("HSET", store.key("allowed", "discord:::1"), name, "digest")


async def test_tools_are_shown_as_far_as_they_work_in_a_place(store: Store) -> None:
    commands, intake = commands_of(store)
    none = await commands.run("tools", OWNER)
    intake.tools = TOOLS

    own, visiting = [await commands.run("tools", call) for call in (OWNER, VISITOR)]

    shown = "- `search`: searches the web\n- `tracker/make_ticket`: I ask you first\n"
    assert none.startswith("I have no tools here.")
    assert own == f"{shown}Write `off` or `on` to switch them."
    assert visiting == f"{shown}{MayNotChange('thread', 'this channel').apology}"


async def test_what_is_allowed_for_always_is_shown_and_taken_back(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.tools = TOOLS
    await allow(store, "wiki/edit", "tracker/make_ticket")

    before = await commands.run("tools", OWNER)
    said = await commands.run("tools", OWNER, "Revoke `wiki/edit`")
    with pytest.raises(Refused, match="not allowed"):
        await commands.run("tools", VISITOR, "revoke tracker/make_ticket")

    assert "You have allowed for always: `tracker/make_ticket`, `wiki/edit`." in before
    assert said == "I will ask you again before I use `wiki/edit`."
    assert await commands.allowed(OWNER) == ["tracker/make_ticket"]


async def test_tools_are_switched_off_and_on_for_a_place(store: Store) -> None:
    commands, intake = commands_of(store)
    intake.tools = TOOLS

    off = await commands.run("tools", MANAGER, "OFF", "channel")
    shown = await commands.run("tools", OWNER)
    overview = await commands.overview(OWNER)
    still = await commands.run("tools", OWNER, "on")
    on = await commands.run("tools", MANAGER, "on", "channel")

    assert off == "From now on I use no tools in this channel."
    assert shown.startswith("- My tools are switched off here.\n")
    assert "For this channel:\n- Tools: off" in overview.text
    assert still == "They stay switched off here, because they are off for this channel."
    assert on == "From now on I may use tools in this channel."
    assert (await chosen(intake, "channel")).tools == ""


@pytest.mark.parametrize(
    ("call", "words", "scope"),
    [(VISITOR, "off", None), (OWNER, "on", "channel"), (OWNER, "perhaps", None)],
)
async def test_tools_are_not_switched_by_others_or_by_other_words(
    store: Store, call: Call, words: str, scope: Scope | None
) -> None:
    commands, intake = commands_of(store)

    with pytest.raises(Refused):
        await commands.run("tools", call, words, scope)

    assert (await chosen(intake, "thread")).tools == ""


async def test_usage_shows_calls_of_tools_if_they_are_limited(store: Store) -> None:
    both = [CommandHandlers(NotedIntake(store, calls_per_day=most)) for most in (None, 1000)]

    without, limited = [await one.run("usage", OWNER) for one in both]

    assert "tools" not in without
    assert "Your calls of tools today: 0 of 1,000" in limited
