"""What people choose by commands and forms, through the real discord.py and a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.access.preferences import ModelChoice, Scope
from bot.access.rules import AccessRules
from bot.domain import Preferences, ThreadKey
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.message import Shown
from tests.support.discord_platform import FAST, listening
from tests.support.fakes import NotedIntake, RefusingStore
from tests.support.waiting import until

MODELS = (ModelChoice("org/small", "Small"), ModelChoice("org/large", "Large"))


@asynccontextmanager
async def talk(store: Store) -> AsyncIterator[tuple[DiscordEmulator, NotedIntake, str]]:
    """A Discord with the bot, what it hands to the core, and a thread of Ada, a person there."""
    intake = NotedIntake(store, models=MODELS)
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada = emulator.user("Ada")
        said = await emulator.say(emulator.channel_id, ada, "We deploy.")
        yield emulator, intake, await emulator.open_thread(said, ada, "Deploy")


def ada_of(emulator: DiscordEmulator, thread: str) -> str:
    owner = emulator.event_of(thread)["author"]
    assert isinstance(owner, dict)
    return str(owner["id"])


async def told(emulator: DiscordEmulator, interaction: str) -> Shown:
    await until(lambda: emulator.original(interaction))
    shown = emulator.original(interaction)
    assert shown
    assert shown.ephemeral
    return shown


async def chosen(
    emulator: DiscordEmulator, intake: NotedIntake, thread: str, scope: Scope
) -> Preferences:
    key = ThreadKey("discord", emulator.guild_id, emulator.channel_id, thread)
    return (await intake.preferences.read(key))[scope]


async def opened(emulator: DiscordEmulator, pressed: str) -> dict[str, Any]:
    """Return the inputs of the form that a press has opened, by name."""
    await until(lambda: emulator.modal(pressed))
    modal: Any = emulator.modal(pressed)
    return {one["component"]["custom_id"]: one["component"] for one in modal["components"]}


async def test_a_model_completes_itself_and_is_chosen_for_a_thread(store: Store) -> None:
    async with talk(store) as (emulator, intake, thread):
        ada = ada_of(emulator, thread)
        typed = await emulator.complete(thread, ada, "parley model", "name", "lar")
        await until(lambda: emulator.choices(typed) is not None)

        used = await emulator.slash(thread, ada, "parley model", name="org/large")
        shown = await told(emulator, used)

        assert emulator.choices(typed) == [{"name": "Large", "value": "org/large"}]
        assert shown.text == "From now on Large answers in this thread."
        assert (await chosen(emulator, intake, thread, "thread")).model == "org/large"


async def test_a_persona_for_a_channel_needs_the_right_to_manage_it(store: Store) -> None:
    async with talk(store) as (emulator, intake, thread):
        mona = emulator.user("Mona", manages="channel")
        options = {"text": "Be brief.", "where": "channel"}

        by_ada = await emulator.slash(
            thread, ada_of(emulator, thread), "parley persona", text="No.", where="channel"
        )
        refused = await told(emulator, by_ada)
        before = await chosen(emulator, intake, thread, "channel")
        await told(emulator, await emulator.slash(thread, mona, "parley persona", **options))

        assert "manages this channel" in refused.text
        assert before == Preferences()
        assert (await chosen(emulator, intake, thread, "channel")).persona == "Be brief."


async def test_tools_are_switched_off_for_a_channel_by_those_who_manage_it(store: Store) -> None:
    async with talk(store) as (emulator, intake, thread):
        mona = emulator.user("Mona", manages="channel")
        options = {"change": "off", "where": "channel"}

        by_ada = await emulator.slash(thread, ada_of(emulator, thread), "parley tools", **options)
        refused = await told(emulator, by_ada)
        before = await chosen(emulator, intake, thread, "channel")
        by_mona = await told(
            emulator, await emulator.slash(thread, mona, "parley tools", **options)
        )

        assert "manages this channel" in refused.text
        assert before == Preferences()
        assert by_mona.text == "From now on I use no tools in this channel."
        assert await chosen(emulator, intake, thread, "channel") == Preferences(tools="off")


@pytest.mark.parametrize(("name", "follow"), [("quiet", "mention"), ("follow", "all")])
async def test_quiet_and_follow_hold_in_a_thread(store: Store, name: str, follow: str) -> None:
    async with talk(store) as (emulator, intake, thread):
        used = await emulator.slash(thread, ada_of(emulator, thread), f"parley {name}")

        await told(emulator, used)

        assert (await chosen(emulator, intake, thread, "thread")).follow == follow


async def test_settings_are_changed_in_a_form(store: Store) -> None:
    async with talk(store) as (emulator, intake, thread):
        mona = emulator.user("Mona", manages="server")
        settings = await told(emulator, await emulator.slash(thread, mona, "parley settings"))

        pressed = await emulator.click(settings.id, mona, "settings:channel:answers")
        inputs = await opened(emulator, pressed)
        sent = await emulator.submit(pressed, model="org/large", temperature="0.5")
        shown = await told(emulator, sent)

        assert list(inputs) == ["model", "persona", "temperature", "max_tokens", "follow"]
        assert shown.text == "Saved for this channel: Model, Temperature."
        assert await chosen(emulator, intake, thread, "channel") == Preferences(
            model="org/large", temperature=0.5
        )


async def test_a_form_is_taken_by_the_next_process(store: Store) -> None:
    async with DiscordEmulator(gateway=FAST) as emulator:
        mona = emulator.user("Mona", manages="server")
        async with listening(emulator, NotedIntake(store, models=MODELS)):
            used = await emulator.slash(emulator.channel_id, mona, "parley settings")
            settings = await told(emulator, used)
            pressed = await emulator.click(settings.id, mona, "settings:server:answers")
            await opened(emulator, pressed)
        intake = NotedIntake(store, models=MODELS)
        async with listening(emulator, intake):
            await told(emulator, await emulator.submit(pressed, persona="Be brief."))

        key = ThreadKey("discord", emulator.guild_id, "", "")
        assert (await intake.preferences.read(key))["server"].persona == "Be brief."


async def test_access_and_quotas_are_changed_in_a_form(store: Store) -> None:
    async with talk(store) as (emulator, intake, thread):
        mona, role = emulator.user("Mona", manages="server"), emulator.role("Crew")
        settings = await told(emulator, await emulator.slash(thread, mona, "parley settings"))
        first = await emulator.click(settings.id, mona, "settings:server:access")
        await opened(emulator, first)
        sent = await emulator.submit(first, people=[mona], roles=[role], questions_per_day="20")
        await told(emulator, sent)

        again = await emulator.click(settings.id, mona, "settings:server:access")
        inputs = await opened(emulator, again)
        shown = await told(emulator, await emulator.submit(again))

        assert [str(one["id"]) for one in inputs["people"]["default_values"]] == [mona]
        assert [str(one["id"]) for one in inputs["roles"]["default_values"]] == [role]
        assert inputs["questions_per_day"]["value"] == "20"
        assert shown.text == "Nothing was changed."
        assert await chosen(emulator, intake, thread, "server") == Preferences(
            people=(mona,), roles=(role,), questions_per_day=20
        )


async def test_settings_of_a_visitor_show_what_is_chosen_and_offer_nothing(store: Store) -> None:
    async with talk(store) as (emulator, _, thread):
        ada, bob = ada_of(emulator, thread), emulator.user("Bob")
        await told(emulator, await emulator.slash(thread, ada, "parley persona", text="Be brief."))

        shown = await told(emulator, await emulator.slash(thread, bob, "parley settings"))

        assert "Be brief." in shown.text
        assert shown.buttons == ()


async def test_a_form_that_was_opened_before_a_right_was_lost_changes_nothing(
    store: Store,
) -> None:
    async with talk(store) as (emulator, intake, thread):
        mona = emulator.user("Mona", manages="channel")
        settings = await told(emulator, await emulator.slash(thread, mona, "parley settings"))
        pressed = await emulator.click(settings.id, mona, "settings:channel:answers")
        await opened(emulator, pressed)
        emulator.allow(mona, "")

        shown = await told(emulator, await emulator.submit(pressed, persona="Mine."))

        assert "Only somebody who manages" in shown.text
        assert await chosen(emulator, intake, thread, "channel") == Preferences()


@pytest.mark.parametrize("name", ["model", "persona", "quiet", "settings"])
async def test_what_cannot_be_stored_now_is_said_at_once_and_works_later(
    store: Store, name: str
) -> None:
    assert isinstance(store, RefusingStore)
    options = {"model": {"name": "Large"}, "persona": {"text": "Be brief."}}
    async with talk(store) as (emulator, _, thread):
        ada, given = ada_of(emulator, thread), options.get(name, {})
        store.refused.add(store.key("preferences"))
        away = await told(emulator, await emulator.slash(thread, ada, f"parley {name}", **given))
        store.refused.clear()

        back = await told(emulator, await emulator.slash(thread, ada, f"parley {name}", **given))

        assert "at the moment" in away.text
        assert "at the moment" not in back.text


@pytest.mark.parametrize(
    "name", ["reset", "stop", "quiet", "model", "persona", "settings", "usage", "help"]
)
async def test_a_command_of_somebody_without_access_is_refused(store: Store, name: str) -> None:
    async with talk(store) as (emulator, intake, thread):
        ada = ada_of(emulator, thread)
        intake.access.rules = AccessRules(blocked=frozenset({ada}))

        shown = await told(emulator, await emulator.slash(thread, ada, f"parley {name}"))

        assert shown.text == "I may not answer you here. The person who runs me can change that."


@pytest.mark.parametrize("action", ["Ask about this", "Summarise from here"])
async def test_a_menu_reads_and_keeps_nothing_for_somebody_without_access(
    store: Store, action: str
) -> None:
    async with talk(store) as (emulator, intake, thread):
        ada = ada_of(emulator, thread)
        intake.access.rules = AccessRules(blocked=frozenset({ada}))

        chosen = await emulator.choose(thread, ada, action)
        shown = await told(emulator, chosen)

        assert shown.text == "I may not answer you here. The person who runs me can change that."
        assert await store.command("KEYS", store.key("message", "*")) == []


async def test_commands_in_a_dm_choose_for_that_dm_alone(store: Store) -> None:
    async with talk(store) as (emulator, intake, _):
        ada = emulator.user("Ann")
        dm = emulator.dm(ada)

        await told(emulator, await emulator.slash(dm, ada, "parley persona", text="Be brief."))
        settings = await told(emulator, await emulator.slash(dm, ada, "parley settings"))

        found = await intake.preferences.read(ThreadKey("discord", "dm", dm, dm))
        assert found["thread"].persona == "Be brief."
        assert settings.buttons == ("settings:thread:answers",)
