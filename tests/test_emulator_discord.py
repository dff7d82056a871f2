"""The emulated Discord keeps Discord's rules, seen through the real discord.py and bare HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import discord
import pytest
import yarl

from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.spec import DISCORD_SPEC
from tests.waiting import until

WAIT = 5.0  # seconds within which everything here must happen
READABLE = discord.Intents.default() | discord.Intents(message_content=True)
BLIND = discord.Intents.default()
IDENTIFY, RESUME, HEARTBEAT = 2, 6, 1


class Bot(discord.Client):
    """A bot that only listens: what it heard waits in `messages` and `interactions`."""

    def __init__(self, *, intents: discord.Intents) -> None:
        super().__init__(intents=intents, guild_ready_timeout=0.05)
        self.messages: asyncio.Queue[discord.Message] = asyncio.Queue()
        self.interactions: asyncio.Queue[discord.Interaction[Bot]] = asyncio.Queue()
        self.heard: list[str] = []
        self.tree = discord.app_commands.CommandTree(self)

    async def on_message(self, message: discord.Message) -> None:
        self.messages.put_nowait(message)

    async def on_interaction(self, interaction: discord.Interaction[Bot]) -> None:
        self.interactions.put_nowait(interaction)

    async def on_socket_event_type(self, name: str) -> None:
        self.heard.append(name)

    def place(self, channel_id: str) -> discord.PartialMessageable:
        return self.get_partial_messageable(int(channel_id))

    async def next_message(self) -> discord.Message:
        return await asyncio.wait_for(self.messages.get(), WAIT)

    async def next_interaction(self) -> discord.Interaction[Bot]:
        return await asyncio.wait_for(self.interactions.get(), WAIT)


@contextlib.asynccontextmanager
async def bot_of(
    emulator: DiscordEmulator, *, intents: discord.Intents = READABLE, listens: bool = False
) -> AsyncIterator[Bot]:
    """The real library, logged in and pointed at the emulator while this is open."""
    base, gateway = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY
    discord.http.Route.BASE = emulator.api_url
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(emulator.gateway_url)
    try:
        async with asyncio.timeout(WAIT), Bot(intents=intents) as bot:
            await bot.login(emulator.token)
            async with asyncio.TaskGroup() as group:
                if listens:
                    group.create_task(bot.connect())
                    await emulator.connected.wait()
                yield bot
                await bot.close()
    finally:
        discord.http.Route.BASE = base
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway


@contextlib.asynccontextmanager
async def http_of(emulator: DiscordEmulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Bare HTTP with the bot's token, for what the library hides."""
    headers = {"Authorization": f"Bot {emulator.token}"}
    timeout = aiohttp.ClientTimeout(total=WAIT)
    base = emulator.api_url + "/"
    async with aiohttp.ClientSession(base, headers=headers, timeout=timeout) as session:
        yield session


@contextlib.asynccontextmanager
async def socket_of(emulator: DiscordEmulator) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A bare, uncompressed gateway socket, greeted already."""
    timeout = aiohttp.ClientWSTimeout(ws_receive=WAIT, ws_close=WAIT)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(emulator.gateway_url, timeout=timeout) as socket,
    ):
        assert (await socket.receive_json())["op"] == 10
        yield socket


def identify(emulator: DiscordEmulator, intents: discord.Intents = READABLE) -> dict[str, object]:
    return {"op": IDENTIFY, "d": {"token": emulator.token, "intents": intents.value}}


def raises(code: int) -> pytest.RaisesExc[discord.HTTPException]:
    return pytest.RaisesExc(discord.HTTPException, check=lambda error: error.code == code)


async def ask_and_defer(emulator: DiscordEmulator, bot: Bot) -> discord.Interaction[Bot]:
    """Return an interaction of /ask that says "thinking" to everybody."""
    await register(bot)
    await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
    interaction = await bot.next_interaction()
    await interaction.response.defer(thinking=True)
    return interaction


async def register(bot: Bot) -> None:
    async def ask(interaction: discord.Interaction[Bot], prompt: str) -> None:
        del interaction, prompt

    bot.tree.add_command(
        discord.app_commands.Command(name="ask", description="Ask", callback=ask), override=True
    )
    await bot.tree.sync()


def stop_button() -> discord.ui.View:
    button: discord.ui.Button[discord.ui.View] = discord.ui.Button(label="Stop", custom_id="stop")
    return discord.ui.View(timeout=None).add_item(button)


async def test_a_message_is_shown_with_every_text_it_had() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await message.edit(content="one two")
        await message.edit(content="one two three", view=None)

    shown = emulator.screen(emulator.channel_id)[0]
    assert shown.text == "one two three"
    assert shown.author_id == emulator.bot_id
    assert shown.edited
    assert shown.buttons == ()
    assert emulator.states(shown.id) == ["one", "one two", "one two three"]


async def test_buttons_show_until_they_are_taken_away() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await bot.place(emulator.channel_id).send("one", view=stop_button())

    assert emulator.screen(emulator.channel_id)[0].buttons == ("stop",)


async def test_messages_are_listed_newest_first() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        ann = emulator.user("ann")
        for text in ("one", "two", "three"):
            await emulator.say(emulator.channel_id, ann, text)

        place = bot.place(emulator.channel_id)
        newest = [message.content async for message in place.history(limit=2)]
        oldest = [message.content async for message in place.history(limit=2, oldest_first=True)]

    assert newest == ["three", "two"]
    assert oldest == ["one", "two"]


async def test_a_deleted_message_is_gone() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        message = await bot.place(emulator.channel_id).send("one")
        await message.delete()

        assert emulator.screen(emulator.channel_id) == []
        with raises(10008):
            await message.edit(content="two")
        with raises(10008):
            await message.fetch()


async def test_white_space_around_a_text_is_dropped() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await bot.place(emulator.channel_id).send("  one \n")

    assert emulator.screen(emulator.channel_id)[0].text == "one"


async def test_a_text_may_have_2000_characters() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        message = await bot.place(emulator.channel_id).send("x" * 2000)
        with raises(50035):
            await message.edit(content="x" * 2001)

    assert emulator.screen(emulator.channel_id)[0].text == "x" * 2000


async def test_an_empty_message_is_refused() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        message = await bot.place(emulator.channel_id).send("one")
        with raises(50006):
            await bot.place(emulator.channel_id).send(" ")
        with raises(50006):
            await message.edit(content=None)


async def test_only_the_author_edits_or_deletes() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "mine")
        message = bot.place(emulator.channel_id).get_partial_message(int(said))
        with raises(50005):
            await message.edit(content="yours")
        with raises(50013):
            await message.delete()


async def test_channels_threads_and_dms_can_be_looked_up() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        channel = await bot.fetch_channel(int(emulator.channel_id))
        found = await bot.fetch_channel(thread.id)
        dm = await bot.fetch_channel(int(emulator.dm(ann)))

    assert isinstance(channel, discord.TextChannel)
    assert isinstance(found, discord.Thread)
    assert found.parent_id == channel.id
    assert isinstance(dm, discord.DMChannel)
    assert str(dm.recipient) == "ann"


async def test_an_unknown_channel_is_refused() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        with raises(10003):
            await bot.place("1").send("one")
        with raises(10003):
            await bot.fetch_channel(1)


async def test_a_message_is_found_only_in_its_channel() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        message = await bot.place(emulator.channel_id).send("one")
        elsewhere = bot.place(emulator.channel("other"))
        with raises(10008):
            await elsewhere.fetch_message(message.id)


async def test_an_enforced_nonce_returns_the_first_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        first = await bot.place(emulator.channel_id).send("one", nonce="turn-0")
        again = await bot.place(emulator.channel_id).send("two", nonce="turn-0")
        other = await bot.place(emulator.channel_id).send("three", nonce="turn-1")

    assert again.id == first.id != other.id
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one", "three"]


async def test_a_nonce_may_have_25_characters() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        async with http.post(path, json={"content": "one", "nonce": "n" * 26}) as answer:
            error = await answer.json()
        emulator.violations.clear()

    assert error["code"] == 50035
    assert "nonce" in error["errors"]


async def test_a_reply_names_what_it_answers() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        question = bot.place(emulator.channel_id).get_partial_message(int(said))
        await question.reply("because")
        await emulator.delete(said)
        with raises(50035):
            await question.reply("too late")

    assert emulator.screen(emulator.channel_id)[0].reply_to == said


async def test_typing_is_seen() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await bot.place(emulator.channel_id).typing()

    assert emulator.typing == [emulator.channel_id]


async def test_the_dm_with_a_person_is_always_the_same() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        ann = emulator.user("ann")
        channel = await bot.create_dm(discord.Object(int(ann)))
        with raises(50033):
            await bot.create_dm(discord.Object(int(emulator.bot_id)))

    assert str(channel.id) == emulator.dm(ann) != emulator.dm(emulator.user("bob"))


@pytest.mark.parametrize(
    ("text", "allowed", "pinged"),
    [
        ("@everyone <@7>", None, ["@everyone", "<@7>"]),
        ("@here <@7> <@&8>", {"parse": []}, []),
        ("@here <@7> <@&8>", {"parse": ["users"]}, ["<@7>"]),
        ("@here <@!7> <@9>", {"parse": [], "users": ["7"]}, ["<@!7>"]),
        ("@here <@&8>", {"parse": ["everyone", "roles"]}, ["@here", "<@&8>"]),
        ("nobody", None, []),
    ],
)
async def test_a_mention_pings_unless_it_is_forbidden(
    text: str, allowed: dict[str, object] | None, pinged: list[str]
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body = {"content": text} | ({"allowed_mentions": allowed} if allowed else {})
        await http.post(f"channels/{emulator.channel_id}/messages", json=body)

    assert emulator.pings == pinged
    assert emulator.unguarded == ([] if allowed else [text])


async def test_an_edit_pings_as_a_new_message_does() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        guard = discord.AllowedMentions.none()
        message = await bot.place(emulator.channel_id).send("one", allowed_mentions=guard)
        await message.edit(content="@everyone")

    assert emulator.pings == ["@everyone"]


async def test_a_thread_bears_the_id_of_its_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        message = await bot.next_message()
        thread = await message.create_thread(name="Why")
        await thread.send("because")
        await until(lambda: "MESSAGE_UPDATE" in bot.heard)

        with raises(160004):
            await message.create_thread(name="Again")

    assert str(thread.id) == said == emulator.thread_of(said)
    assert [one.text for one in emulator.screen(said)] == ["because"]
    assert "THREAD_CREATE" in bot.heard


async def test_no_thread_opens_in_a_dm() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        dm = emulator.dm(ann)
        said = await emulator.say(dm, ann, "why")
        await bot.next_message()
        with raises(50024):
            await bot.http.start_thread_with_message(
                int(dm), int(said), name="Why", auto_archive_duration=60
            )

    assert emulator.thread_of(said) is None


async def test_a_channel_takes_only_so_many_writes() -> None:
    async with DiscordEmulator(bucket=(2, 0.2)) as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        elsewhere = f"channels/{emulator.channel('other')}/messages"
        taken = [await http.post(path, json={"content": "x"}) for _ in range(2)]
        late = await http.post(path, json={"content": "x"})
        other = await http.post(elsewhere, json={"content": "x"})
        wait = float((await late.json())["retry_after"])
        await asyncio.sleep(wait)
        after = await http.post(path, json={"content": "x"})

    assert [one.headers["X-RateLimit-Remaining"] for one in taken] == ["1", "0"]
    assert late.status == 429
    assert late.headers["Via"]
    assert 0.1 < wait <= 0.2
    assert float(late.headers["X-RateLimit-Reset-After"]) == wait
    assert other.status == after.status == 200


async def test_edits_and_creates_have_buckets_of_their_own() -> None:
    async with DiscordEmulator(bucket=(1, 5.0)) as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        created = await http.post(path, json={"content": "x"})
        path += f"/{emulator.screen(emulator.channel_id)[0].id}"
        edited = [await http.patch(path, json={"content": "y"}) for _ in range(2)]

    assert created.headers["X-RateLimit-Bucket"] != edited[0].headers["X-RateLimit-Bucket"]
    assert [one.status for one in edited] == [200, 429]


async def test_the_library_waits_for_the_bucket() -> None:
    async with DiscordEmulator(bucket=(2, 0.2)) as emulator, bot_of(emulator) as bot:
        begun = time.monotonic()
        message = await bot.place(emulator.channel_id).send("0")
        for number in range(1, 5):
            await message.edit(content=str(number))

    assert 0.4 <= time.monotonic() - begun < 2.0
    assert 429 not in [call.status for call in emulator.requests]
    assert emulator.states(str(message.id)) == ["0", "1", "2", "3", "4"]


async def test_an_interaction_has_a_bucket_of_its_own() -> None:
    async with (
        DiscordEmulator(bucket=(1, 5.0)) as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        first, second = [await ask_and_defer(emulator, bot) for _ in range(2)]
        paths = [f"webhooks/{emulator.application_id}/{one.token}" for one in (first, second)]
        answers = [
            await http.patch(f"{path}/messages/@original", json={"content": "x"})
            for path in (paths[0], paths[0], paths[1])
        ]

    assert [one.status for one in answers] == [200, 429, 200]


async def test_a_command_is_deferred_and_streams_into_its_original() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        thinking = emulator.original(str(interaction.id))
        await interaction.edit_original_response(content="one")
        await interaction.edit_original_response(content="one two")
        await interaction.followup.send("three")

    assert emulator.commands[0]["name"] == "ask"
    assert interaction.data == {
        "id": emulator.commands[0]["id"],
        "name": "ask",
        "type": 1,
        "options": [{"name": "prompt", "type": 3, "value": "why"}],
    }
    assert thinking is not None
    assert thinking.text == ""
    original = emulator.original(str(interaction.id))
    assert original is not None
    assert emulator.states(original.id) == ["one", "one two"]
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one two", "three"]


async def test_the_first_follow_up_takes_the_place_of_thinking() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        await interaction.followup.send("one")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_an_archived_thread_takes_messages_and_no_edits() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        message = await thread.send("one")
        await emulator.archive(said)
        with raises(50083):
            await message.edit(content="two")

        await thread.send("three")
        await message.edit(content="four")

    assert "THREAD_UPDATE" in bot.heard
    assert [one.text for one in emulator.screen(said)] == ["four", "three"]


async def test_an_archived_thread_can_be_opened_again() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        message = await thread.send("one")
        await emulator.archive(said)
        archived = await bot.fetch_channel(thread.id)

        reopened = await thread.edit(archived=False)
        await message.edit(content="two")

    assert isinstance(archived, discord.Thread)
    assert (archived.archived, reopened.archived) == (True, False)
    assert [one.text for one in emulator.screen(said)] == ["two"]


async def test_a_locked_thread_is_closed_to_the_bot() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        await emulator.archive(said, locked=True)

        with raises(50083):
            await thread.send("one")
        with raises(50013):
            await thread.edit(archived=False)
        with raises(50024):
            await bot.http.edit_channel(int(emulator.channel_id), name="else")


@pytest.mark.parametrize("in_threads", [True, False])
async def test_writing_can_be_forbidden_in_a_channel_or_in_its_threads(in_threads: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        emulator.forbid_writing(emulator.channel_id, in_threads=in_threads)
        channel = bot.place(emulator.channel_id)
        forbidden, allowed = (thread, channel) if in_threads else (channel, thread)

        with raises(50013):
            await forbidden.send("one")
        await allowed.send("two")


async def test_a_command_waits_until_it_is_registered() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        used = asyncio.create_task(emulator.slash(emulator.dm(ann), ann, "ask", prompt="why"))
        await register(bot)
        interaction = await bot.next_interaction()

    assert await used == str(interaction.id)
    assert interaction.guild is None
    assert str(interaction.user.id) == ann


async def test_a_command_takes_only_its_options() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await register(bot)
        with pytest.raises(AssertionError, match="prompt"):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", question="why")


async def test_an_interaction_is_answered_once() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        interaction = await ask_and_defer(emulator, bot)
        answered = f"interactions/{interaction.id}/{interaction.token}/callback"
        async with http_of(emulator) as http, http.post(answered, json={"type": 5}) as again:
            error = await again.json()

    assert (again.status, error["code"]) == (400, 40060)


async def test_an_interaction_is_answered_in_time_or_never() -> None:
    async with (
        DiscordEmulator(callback_seconds=0.0) as emulator,
        bot_of(emulator, listens=True) as bot,
    ):
        with raises(10062):
            await ask_and_defer(emulator, bot)


async def test_an_unanswered_interaction_has_no_webhook() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        with raises(10015):
            await interaction.edit_original_response(content="one")

    assert emulator.original(str(interaction.id)) is None


async def test_the_token_of_an_interaction_dies() -> None:
    async with (
        DiscordEmulator(token_seconds=0.2) as emulator,
        bot_of(emulator, listens=True) as bot,
    ):
        interaction = await ask_and_defer(emulator, bot)
        await interaction.edit_original_response(content="one")
        await asyncio.sleep(0.2)
        with raises(10015):
            await interaction.edit_original_response(content="two")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_an_ephemeral_answer_is_nothing_for_the_channel() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        await interaction.response.send_message("psst", ephemeral=True)
        original = emulator.original(str(interaction.id))
        assert original is not None
        with raises(10008):
            await bot.place(emulator.channel_id).fetch_message(int(original.id))

    assert original.ephemeral
    assert "MESSAGE_CREATE" not in bot.heard


async def test_a_button_is_answered_in_its_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await emulator.click(str(message.id), ann, "stop")
        interaction = await bot.next_interaction()
        await interaction.response.edit_message(content="one, stopped", view=None)

        with pytest.raises(AssertionError, match="only the buttons"):
            await emulator.click(str(message.id), ann, "stop")

    assert interaction.message is not None
    assert interaction.message.id == message.id
    assert emulator.screen(emulator.channel_id)[0].text == "one, stopped"


async def test_a_button_is_answered_silently() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        message = await bot.place(emulator.channel_id).send("one", view=stop_button())
        await emulator.click(str(message.id), emulator.user("ann"), "stop")
        interaction = await bot.next_interaction()
        await interaction.response.defer()
        await interaction.edit_original_response(content="two")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["two"]


async def test_a_command_has_no_message_to_update() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await register(bot)
        await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
        interaction = await bot.next_interaction()
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        async with http_of(emulator) as http, http.post(path, json={"type": 6}) as answer:
            error = await answer.json()

    assert error["code"] == 50035


async def test_a_bot_hears_people_and_itself() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, f"{emulator.bot_mention} why")
        heard = await bot.next_message()
        await bot.place(emulator.channel_id).send("because")
        own = await bot.next_message()

    assert heard.content == f"{emulator.bot_mention} why"
    assert bot.user in heard.mentions
    assert heard.guild is not None
    assert not heard.author.bot
    assert own.author == bot.user
    assert emulator.sessions == 1


async def test_a_bot_hears_of_edits_and_deletions() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        await emulator.edit(said, "who")
        await emulator.delete(said)
        await until(lambda: "MESSAGE_DELETE" in bot.heard)

    told = [name for name in bot.heard if name.startswith("MESSAGE")]
    assert told == ["MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE"]


async def test_an_event_can_come_again() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        await emulator.redeliver(said)
        heard = [await bot.next_message(), await bot.next_message()]

    assert [str(one.id) for one in heard] == [said, said]


async def test_any_event_can_be_told() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        forwarded: dict[str, object] = {"message": emulator.event_of(said)}
        told = emulator.event_of(said) | {"id": "99", "message_snapshots": [forwarded]}
        await emulator.tell("MESSAGE_CREATE", told)
        await bot.next_message()
        heard = await bot.next_message()

    assert heard.id == 99
    assert heard.message_snapshots[0].content == "why"


async def test_content_is_veiled_without_its_intent() -> None:
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=BLIND, listens=True) as bot,
    ):
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, "secret")
        await emulator.say(emulator.channel_id, ann, f"{emulator.bot_mention} hi")
        await emulator.say(emulator.dm(ann), ann, "private")
        heard = [(await bot.next_message()).content for _ in range(3)]
        own = await bot.place(emulator.channel_id).send("mine")
        await emulator.say(emulator.channel_id, ann, "yes", reply_to=str(own.id))
        heard += [(await bot.next_message()).content for _ in range(2)]
        place = bot.place(emulator.channel_id)
        listed = [one.content async for one in place.history(oldest_first=True)]

    assert heard == ["", f"{emulator.bot_mention} hi", "private", "mine", "yes"]
    assert listed == ["", f"{emulator.bot_mention} hi", "mine", "yes"]


async def test_asking_for_content_without_permission_closes_the_gateway() -> None:
    async with DiscordEmulator(message_content=False) as emulator, bot_of(emulator) as bot:
        with pytest.raises(discord.PrivilegedIntentsRequired):
            await bot.connect()

    assert not emulator.connected.is_set()


async def test_events_nobody_asked_for_do_not_come() -> None:
    async with DiscordEmulator() as emulator:
        intents = discord.Intents(guilds=True, dm_messages=True)
        async with bot_of(emulator, intents=intents, listens=True) as bot:
            ann = emulator.user("ann")
            await emulator.say(emulator.channel_id, ann, "channel")
            await emulator.say(emulator.dm(ann), ann, "dm")
            heard = await bot.next_message()

    assert heard.guild is None


async def test_a_lost_session_resumes_and_misses_nothing() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, "before")
        await emulator.disconnect()
        assert not emulator.connected.is_set()
        await emulator.say(emulator.channel_id, ann, "meanwhile")
        await asyncio.wait_for(emulator.connected.wait(), WAIT)
        await emulator.say(emulator.channel_id, ann, "after")
        heard = [(await bot.next_message()).content for _ in range(3)]

    assert heard == ["before", "meanwhile", "after"]
    assert emulator.sessions == 1


async def test_an_unknown_session_cannot_resume() -> None:
    async with DiscordEmulator() as emulator, socket_of(emulator) as socket:
        data = {"token": emulator.token, "session_id": "1", "seq": 1}
        await socket.send_json({"op": RESUME, "d": data})

        assert await socket.receive_json() == {"op": 9, "d": False}


async def test_a_plain_socket_is_greeted_and_its_heart_beats() -> None:
    async with DiscordEmulator() as emulator, socket_of(emulator) as socket:
        await socket.send_json({"op": HEARTBEAT, "d": None})
        await socket.send_json(identify(emulator))

        assert await socket.receive_json() == {"op": 11}
        assert [(await socket.receive_json())["t"] for _ in range(2)] == ["READY", "GUILD_CREATE"]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([{"op": IDENTIFY, "d": {"token": "wrong", "intents": 0}}], 4004),
        ([{"op": 3, "d": {}}], 4003),
        (["identify", "identify"], 4005),
        (["nonsense"], 4002),
    ],
)
async def test_bad_manners_close_the_gateway(frames: list[object], code: int) -> None:
    async with DiscordEmulator() as emulator, socket_of(emulator) as socket:
        for frame in frames:
            await socket.send_json(identify(emulator) if frame == "identify" else frame)
        async for _ in socket:
            pass

    assert socket.close_code == code


async def test_a_wrong_token_is_refused() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        wrong = await http.get("users/@me", headers={"Authorization": "Bot wrong"})
        right = await http.get("users/@me")

    assert (wrong.status, right.status) == (401, 200)


async def test_a_call_fails_as_often_as_it_is_told_to() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST", "/messages$", status=403, body={"code": 50013}, after=1, times=1)
        await bot.place(emulator.channel_id).send("one")
        with raises(50013):
            await bot.place(emulator.channel_id).send("two")
        await bot.place(emulator.channel_id).send("three")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one", "three"]
    assert [call.status for call in emulator.requests if call.method == "POST"] == [200, 403, 200]


async def test_a_call_fails_after_its_work_was_done() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST", "/messages$", status=None, applied=True)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await bot.place(emulator.channel_id).send("one")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]
    assert emulator.requests[-1].status is None


async def test_a_call_hangs_until_the_caller_gives_up() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST", "/messages$", hang=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bot.place(emulator.channel_id).send("one"), 0.1)

        assert emulator.screen(emulator.channel_id) == []
        assert emulator.requests[-1].body["content"] == "one"


@pytest.mark.parametrize("headers", [None, {}])
async def test_the_library_believes_a_429_only_with_via(headers: dict[str, str] | None) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST", "/messages$", status=429, headers=headers)
        with contextlib.nullcontext() if headers is None else raises(0):
            await bot.place(emulator.channel_id).send("one")

    assert len(emulator.screen(emulator.channel_id)) == (headers is None)


async def test_every_call_takes_the_latency() -> None:
    async with DiscordEmulator(latency=0.1) as emulator, http_of(emulator) as http:
        begun = time.monotonic()
        await http.get("users/@me")

    assert time.monotonic() - begun >= 0.1


async def test_leaving_names_the_calls_that_are_not_emulated() -> None:
    async def pin() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            await http.put("channels/1/pins/2")

    with pytest.raises(AssertionError, match="PUT /channels/1/pins/2"):
        await pin()


async def test_leaving_names_what_the_openapi_document_forbids() -> None:
    if not DISCORD_SPEC.exists():
        pytest.skip(f"Discord's OpenAPI document is not at hand: put it at {DISCORD_SPEC}")

    async def send() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            path = f"channels/{emulator.channel_id}/messages"
            await http.post(path, json={"content": "x", "flags": "many"})

    with pytest.raises(AssertionError, match=r"\$\.flags: 'many' is not"):
        await send()


async def test_an_error_on_the_way_out_is_not_hidden() -> None:
    async def stumble() -> None:
        async with DiscordEmulator() as emulator:
            emulator.unknown.append("GET /nothing")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumble()
