"""The emulated Discord's subcommands, menus, forms and installs, through discord.py's own tree."""

from __future__ import annotations

import asyncio
from typing import Any

import discord
import pytest
from discord import app_commands

from tests.emulators.discord import DiscordEmulator
from tests.support.discord_bot import DiscordBot, ask_and_defer, bot_of, http_of, raises
from tests.support.waiting import until


class Details(discord.ui.Modal, title="Details"):
    """A form of a text and a choice."""

    text: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(
        text="Text", component=discord.ui.TextInput(custom_id="text", default="as it was")
    )
    kind: discord.ui.Label[discord.ui.Modal] = discord.ui.Label(
        text="Kind",
        component=discord.ui.Select(
            custom_id="kind",
            options=[
                discord.SelectOption(label="A", value="a", default=True),
                discord.SelectOption(label="B", value="b"),
            ],
        ),
    )


@app_commands.allowed_installs(guilds=True, users=True)
@app_commands.allowed_contexts(guilds=True, dms=True, private_channels=True)
class Box(app_commands.Group):
    """A group of one command."""

    @app_commands.command()
    async def put(self, interaction: discord.Interaction, thing: str, loud: bool = False) -> None:
        """Put something in."""
        await interaction.response.send_message(f"{thing} {loud}")

    @put.autocomplete("thing")
    async def _things(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=f"{typed}!", value=typed)]


async def weigh(interaction: discord.Interaction, thing: discord.Attachment) -> None:
    await interaction.response.send_message(f"{thing.filename}, {thing.content_type}")


async def open_details(interaction: discord.Interaction) -> None:
    await interaction.response.send_modal(Details())


async def quote(interaction: discord.Interaction, message: discord.Message) -> None:
    await interaction.response.send_message(f"> {message.content}", ephemeral=True)


async def registered(bot: DiscordBot) -> None:
    bot.tree.add_command(Box(name="box", description="A box"))
    bot.tree.add_command(app_commands.ContextMenu(name="Quote", callback=quote))
    bot.tree.command(name="weigh", description="Weigh a file")(weigh)
    bot.tree.command(name="details", description="A form")(open_details)
    await bot.tree.sync()


async def test_a_subcommand_gets_its_options_with_their_types() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        ann = emulator.user("ann")

        used = await emulator.slash(emulator.channel_id, ann, "box put", thing="ball", loud=True)
        await until(lambda: emulator.original(used))

        shown = emulator.original(used)
        assert shown
        assert shown.text == "ball True"


async def test_an_option_takes_a_file() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)

        used = await emulator.slash(
            emulator.channel_id, emulator.user("ann"), "weigh", thing="cat.png"
        )
        await until(lambda: emulator.original(used))

        shown = emulator.original(used)
        assert shown
        assert shown.text == "cat.png, image/png"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("box", {}),
        ("box take", {}),
        ("box put", {}),
        ("box put", {"thing": "ball", "loud": "yes"}),
        ("box put", {"thing": "ball", "big": "yes"}),
        ("details now", {}),
    ],
)
async def test_a_command_is_used_only_as_it_is_defined(name: str, options: dict[str, str]) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)

        with pytest.raises(AssertionError):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), name, **options)


async def test_an_option_completes_itself() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)

        typed = await emulator.complete(
            emulator.channel_id, emulator.user("ann"), "box put", "thing", "ba"
        )
        await until(lambda: emulator.choices(typed))

        assert emulator.choices(typed) == [{"name": "ba!", "value": "ba"}]


async def test_a_menu_hands_over_the_whole_message_even_if_the_bot_may_not_read() -> None:
    blind = discord.Intents.default()
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=blind, listens=True) as bot,
    ):
        await registered(bot)
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "one")

        chosen = await emulator.choose(said, emulator.user("ben"), "Quote")
        await until(lambda: emulator.original(chosen))

        shown = emulator.original(chosen)
        assert shown
        assert (shown.text, shown.ephemeral) == ("> one", True)


async def test_a_form_is_sent_with_what_was_changed_and_what_was_not() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        used = await emulator.slash(emulator.channel_id, emulator.user("ann"), "details")
        opening = await bot.next_interaction()
        await until(lambda: emulator.modal(used))

        sent = await emulator.submit(used, kind="b")
        interaction = await bot.next_interaction()

        data: Any = interaction.data
        assert opening.type is discord.InteractionType.application_command
        assert interaction.type is discord.InteractionType.modal_submit
        assert str(interaction.id) == sent
        texts, kinds = (one["component"] for one in data["components"])
        assert texts["value"] == "as it was"
        assert kinds["values"] == ["b"]
        assert emulator.modal(used) is None


async def test_a_form_takes_only_what_it_offers() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        used = await emulator.slash(emulator.channel_id, emulator.user("ann"), "details")
        await until(lambda: emulator.modal(used))

        with pytest.raises(AssertionError, match="offers"):
            await emulator.submit(used, kind="c")
        with pytest.raises(AssertionError, match="filled in"):
            await emulator.submit(used, text="")
        with pytest.raises(AssertionError, match="only"):
            await emulator.submit(used, size="b")


async def test_a_form_opens_no_form() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        used = await emulator.slash(emulator.channel_id, emulator.user("ann"), "details")
        await bot.next_interaction()
        await until(lambda: emulator.modal(used))
        await emulator.submit(used)
        interaction = await bot.next_interaction()

        with raises(50035):
            await interaction.response.send_modal(Details())


@pytest.mark.parametrize("kind", [0, 1, 3])
async def test_a_person_takes_a_bot_where_it_is_no_member(kind: int) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        people = [emulator.user("ann"), emulator.user("ben")]
        place = emulator.elsewhere(kind, *people[: 2 if kind else 0])  # type: ignore[arg-type]

        used = await emulator.slash(place, people[0], "box put", thing="ball")
        interaction = await bot.next_interaction()
        await until(lambda: emulator.original(used))

        assert interaction.is_user_integration()
        assert not interaction.is_guild_integration()
        assert interaction.context.private_channel is (kind != 0)
        with raises(50001):
            await bot.place(place).send("hello")
        with raises(50001):
            await bot.http.logs_from(int(place), limit=1)


async def test_there_an_interaction_has_five_follow_ups() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await registered(bot)
        place = emulator.elsewhere(3, emulator.user("ann"), emulator.user("ben"))
        await emulator.slash(place, emulator.user("eve"), "box put", thing="ball")
        interaction = await bot.next_interaction()
        await until(interaction.response.is_done)

        path = f"webhooks/{emulator.application_id}/{interaction.token}"
        async with http_of(emulator) as http:
            statuses = []
            for number in range(6):
                emulator.clock.advance(5)
                answer = await http.post(path, json={"content": str(number)})
                statuses.append(answer.status)

        assert statuses == [200] * 5 + [400]


async def test_a_command_is_not_offered_where_it_is_not_for() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await ask_and_defer(emulator, bot)
        ann = emulator.user("ann")
        place = emulator.elsewhere(3, ann)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await emulator.slash(place, ann, "ask", prompt="why")


@pytest.mark.parametrize(
    "command",
    [
        {"name": "Ask", "type": 1, "description": "Ask"},
        {"name": "ask me", "type": 1, "description": "Ask"},
        {"name": "ask", "type": 1, "description": "Ask", "name_localizations": {"de": "Frag"}},
        {"name": "ask", "type": 1},
        {
            "name": "ask",
            "type": 1,
            "description": "Ask",
            "options": [
                {"name": "one", "type": 3, "description": "One"},
                {"name": "two", "type": 3, "description": "Two", "required": True},
            ],
        },
        {
            "name": "ask",
            "type": 1,
            "description": "Ask",
            "options": [
                {
                    "name": name,
                    "type": 3,
                    "description": "One",
                    "name_localizations": {"de": "gleich"},
                }
                for name in ("one", "two")
            ],
        },
    ],
)
async def test_a_definition_that_discord_refuses_is_refused(command: dict[str, object]) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        application = int(emulator.application_id)

        with raises(50035):
            await bot.http.bulk_upsert_global_commands(application, [command])

        assert emulator.commands == []
