"""What people choose in Slack's forms, through the real slack-bolt and a real store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.commands.handlers import MayNotChange
from bot.domain import Preferences
from bot.store import Store
from tests.emulators.slack.workspace import Role
from tests.support.fakes import RefusingStore
from tests.support.slack_commands import AWAY, chosen, commanded, opened, read_by
from tests.support.waiting import until

ANSWERS, ACCESS = "open_form:channel:answers", "open_form:server:access"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("model", "org/large", Preferences(model="org/large")),
        ("persona", "Be <!channel> brief.", Preferences(persona="Be <!channel> brief.")),
    ],
)
async def test_without_words_a_form_offers_what_can_be_chosen(
    name: str, value: str, kept: Preferences, store: Store
) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="admin")

        await slack.slash(slack.channel_id, ann, "/parley", name)
        form = await opened(slack, ann)
        places = list(form.options("scope"))
        await slack.submit(ann, **{name: value, "scope": "server"})

        assert name in ("model", "persona")
        assert ("Small answers here." in (text := slack.ephemerals[-1].text)) == (name == "model")
        assert "`default`" in text
        assert places == ["channel", "server"]
        assert form.texts[0].startswith("From now on")
        assert not form.fields
        assert await chosen(slack, intake, "server") == kept
        assert await chosen(slack, intake, "channel") == Preferences()


@pytest.mark.parametrize(
    ("creates", "role", "offered"),
    [(True, None, ["channel"]), (False, "owner", ["channel", "server"])],
)
@pytest.mark.parametrize("name", ["model", "persona"])
async def test_a_form_offers_the_places_for_which_the_person_may_choose(
    name: str, *, creates: bool, role: Role | None, offered: list[str], store: Store
) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role=role)
        slack.set_creator(slack.channel_id, ann if creates else None)

        await slack.slash(slack.channel_id, ann, "/parley", name)

        assert list((await opened(slack, ann)).options("scope")) == offered


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model", "Small answers here. Models: Small, Large. "),
        ("persona", "No persona is chosen here.\n"),
    ],
)
async def test_who_may_choose_for_no_place_reads_so_without_a_form(
    name: str, shown: str, store: Store
) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", name)

        assert slack.modal(ann) is None
        assert read_by(slack, ann) == [f"{shown}{MayNotChange('channel', 'this channel').apology}"]


async def test_a_form_that_does_not_open_says_what_to_do(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role="admin")
        slack.fail("views.open", error="expired_trigger_id")

        await slack.slash(slack.channel_id, ann, "/parley", "model")

        assert read_by(slack, ann) == [AWAY]


async def test_a_model_is_taken_back_in_the_form(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        await slack.slash(dm, ann, "/parley", "model Large")

        await slack.slash(dm, ann, "/parley", "model")
        form = await opened(slack, ann)
        models = list(form.options("model"))
        await slack.submit(ann, model="-")

        assert models == ["org/small", "org/large", "-"]
        assert form.texts == ["From now on the default model answers in our conversation."]
        assert await chosen(slack, intake, "thread", dm, dm) == Preferences()


async def test_without_models_nothing_is_offered(store: Store) -> None:
    async with commanded(store, models=()) as (slack, _):
        ann = slack.user("Ann", role="admin")

        await slack.slash(slack.channel_id, ann, "/parley", "model")

        assert slack.modal(ann) is None
        assert read_by(slack, ann) == ["The default model answers here."]


async def test_a_form_offers_what_its_person_may_change(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        slack.set_creator(slack.channel_id, ann)

        await slack.slash(slack.channel_id, ann, "/parley", "persona")
        form = await opened(slack, ann)
        await slack.slash(slack.channel_id, bob, "/parley", "persona")

        assert list(form.options("scope")) == ["channel"]
        assert slack.modal(bob) is None
        assert read_by(slack, bob)[0].endswith(MayNotChange("channel", "this channel").apology)


async def test_settings_are_changed_in_a_form(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "model small")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        overview = slack.ephemerals[-1]

        await slack.press(overview, ANSWERS)
        form = await opened(slack, ann)
        fields, held = [*form.fields], form.held("model")
        title = form.title
        await slack.submit(ann, model="org/large", temperature="0,5")

        assert overview.text == "For this channel:\n- Model: Small"
        assert title == "Answers in this channel"
        assert fields == ["model", "persona", "temperature", "max_tokens", "follow"]
        assert held == "org/small"
        assert form.texts == ["Saved for this channel: Model, Temperature."]
        assert await chosen(slack, intake, "channel") == Preferences(
            model="org/large", temperature=0.5
        )


async def test_access_and_quotas_are_changed_in_a_form_without_roles(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann", role="admin"), slack.user("Bob")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[-1], ACCESS)
        form = await opened(slack, ann)
        fields = [*form.fields]
        await slack.submit(ann, people=[ann, bob], questions_per_day="20")

        await slack.press(slack.ephemerals[-1], ACCESS)
        again = await opened(slack, ann)
        people = again.held("people")
        await slack.submit(ann)

        assert "roles" not in fields
        assert people == f"{ann},{bob}"
        assert again.texts == ["Nothing was changed."]
        assert await chosen(slack, intake, "server") == Preferences(
            people=(ann, bob), questions_per_day=20
        )


async def test_a_form_is_stored_with_the_rights_of_that_moment(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[0], ACCESS)
        form = await opened(slack, ann)
        slack.set_role(ann, None)

        await slack.submit(ann, people=[ann])

        assert form.errors == {"people": "Only an admin can change this for everybody."}
        assert await chosen(slack, intake, "server") == Preferences()


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", "hot"), ("temperature", "5"), ("max_tokens", "99999")]
)
async def test_an_invalid_value_is_reported_below_its_field_and_the_form_stays(
    field: str, value: str, store: Store
) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[0], ANSWERS)
        form = await opened(slack, ann)

        await slack.submit(ann, **{field: value})

        assert [*form.errors] == [field]
        assert field in form.fields
        assert await chosen(slack, intake, "channel") == Preferences()


async def test_without_the_store_a_form_keeps_what_was_filled_in(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[0], ANSWERS)
        form = await opened(slack, ann)
        store.refused.add(store.key("preferences"))

        await slack.submit(ann, temperature="1")

        assert form.errors == {"model": AWAY}


async def test_a_form_that_cannot_be_read_turns_into_an_excuse(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        store.refused.add(store.key("preferences"))

        await slack.press(slack.ephemerals[0], ANSWERS)
        await until(lambda: (form := slack.modal(ann)) is not None and form.texts == [AWAY])


async def test_a_visitor_is_offered_no_form_and_a_forged_press_opens_none(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann, bob = slack.user("Ann", role="admin"), slack.user("Bob")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.slash(slack.channel_id, bob, "/parley", "settings")
        anns, bobs = slack.ephemerals

        await slack.press(replace(anns, user_id=bob), ACCESS)
        await until(lambda: (form := slack.modal(bob)) is not None and form.title == "Parley")

        shown = slack.modal(bob)
        assert shown is not None
        assert not bobs.buttons
        assert shown.texts == ["Only an admin can change this for everybody."]
