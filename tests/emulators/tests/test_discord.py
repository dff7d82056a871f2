"""The emulated Discord keeps Discord's rules, seen through the real discord.py and bare HTTP."""

from __future__ import annotations

import json
import time

import discord
import pytest

from tests.emulators import specs
from tests.emulators.discord import DiscordEmulator, spec
from tests.support.discord_bot import BLIND, bot_of, http_of, raises, register, stop_button
from tests.support.waiting import until


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


async def test_a_channel_names_its_last_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await emulator.say(emulator.channel_id, emulator.user("ann"), "one")
        last = await bot.place(emulator.channel_id).send("two")

        channel = await bot.fetch_channel(int(emulator.channel_id))

    assert isinstance(channel, discord.TextChannel)
    assert channel.last_message_id == last.id


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


async def test_a_nonce_is_forgotten_after_some_minutes() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        first = await bot.place(emulator.channel_id).send("one", nonce="turn-0")
        emulator.clock.advance(181)
        again = await bot.place(emulator.channel_id).send("one", nonce="turn-0")

    assert again.id != first.id


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


async def test_the_timeline_has_all_that_a_person_saw() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        begun = time.monotonic()
        await bot.place(emulator.channel_id).typing()
        message = await bot.place(emulator.channel_id).send("one")
        await message.edit(content="one two")
        await message.delete()
        ended = time.monotonic()

    moments = emulator.timeline(emulator.channel_id)
    shown = [(moment.what, moment.message, moment.text) for moment in moments]
    said = str(message.id)
    changes = [("post", said, "one"), ("edit", said, "one two"), ("delete", said, "")]
    assert shown == [("sign", "", ""), *changes]
    assert begun <= moments[0].at <= moments[-1].at <= ended


async def test_a_thread_has_a_timeline_of_its_own() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why")
        thread = await emulator.open_thread(said, ann, "Why")
        await bot.place(thread).send("because")

    assert [moment.text for moment in emulator.timeline(emulator.channel_id)] == ["why"]
    assert [moment.text for moment in emulator.timeline(thread)] == ["because"]


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


@pytest.mark.parametrize(
    ("text", "pinged"),
    [
        ("`@everyone` <@7>", ["<@7>"]),
        ("``a ` <@7>`` <@8>", ["<@8>"]),
        ("```\n<@7>\n``` <@8>", ["<@8>"]),
        ("```py\n<@7>``` <@8>", ["<@8>"]),
        ("```\n<@7>\n", ["<@7>"]),
        ("`<@7>\n", ["<@7>"]),
        ("\\`<@7>`", ["<@7>"]),
        ("``<@7>`", ["<@7>"]),
    ],
)
async def test_a_mention_in_code_pings_nobody(text: str, pinged: list[str]) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        await http.post(f"channels/{emulator.channel_id}/messages", json={"content": text})

    assert emulator.pings == pinged


async def test_a_person_who_writes_a_mention_as_code_calls_nobody() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, f"`{emulator.bot_mention}` `@everyone`")
        heard = await bot.next_message()

    assert heard.mentions == []
    assert not heard.mention_everyone


@pytest.mark.parametrize(
    ("allowed", "field"),
    [
        ({"parse": ["users"], "users": ["7"]}, "allowed_mentions"),
        ({"parse": ["roles"], "roles": ["7"]}, "allowed_mentions"),
        ({"parse": [], "users": [str(number) for number in range(101)]}, "users"),
    ],
)
async def test_a_contradiction_in_what_may_be_mentioned_is_refused(
    allowed: dict[str, object], field: str
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body = {"content": "x", "allowed_mentions": allowed}
        answer = await http.post(f"channels/{emulator.channel_id}/messages", json=body)
        error = await answer.json()
        emulator.violations.clear()

    assert (answer.status, error["code"]) == (400, 50035)
    assert field in json.dumps(error["errors"])
    assert emulator.screen(emulator.channel_id) == []


def row(*buttons: dict[str, object]) -> dict[str, object]:
    return {"type": 1, "components": list(buttons)}


def button(custom_id: str, label: str = "Go") -> dict[str, object]:
    return {"type": 2, "style": 2, "custom_id": custom_id, "label": label}


SIX = [button(str(number)) for number in range(6)]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row(one) for one in SIX], "BASE_TYPE_BAD_LENGTH"),
        ([row(*SIX)], "BASE_TYPE_BAD_LENGTH"),
        ([row()], "BASE_TYPE_BAD_LENGTH"),
        ([row(button("x" * 101))], "BASE_TYPE_BAD_LENGTH"),
        ([row(button(""))], "BASE_TYPE_BAD_LENGTH"),
        ([row(button("x", "x" * 81))], "BASE_TYPE_MAX_LENGTH"),
        ([row(button("x"), button("x"))], "COMPONENT_CUSTOM_ID_DUPLICATED"),
        ([row(button("x")), row(button("x"))], "COMPONENT_CUSTOM_ID_DUPLICATED"),
    ],
)
async def test_rows_and_buttons_have_limits(rows: list[object], code: str) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body = {"content": "x", "components": rows}
        answer = await http.post(f"channels/{emulator.channel_id}/messages", json=body)
        error = await answer.json()
        emulator.violations.clear()

    assert (answer.status, error["code"]) == (400, 50035)
    assert code in json.dumps(error["errors"]["components"])


async def test_five_rows_of_five_buttons_are_shown() -> None:
    names = [f"{number}".ljust(100, "x") for number in range(25)]
    rows = [row(*(button(name, "x" * 80) for name in names[at : at + 5])) for at in range(0, 25, 5)]
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body = {"content": "x", "components": rows}
        await http.post(f"channels/{emulator.channel_id}/messages", json=body)

    assert emulator.screen(emulator.channel_id)[0].buttons == tuple(names)


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


@pytest.mark.parametrize("is_bot", [True, False])
async def test_others_open_threads_in_which_the_bot_takes_part_when_it_writes(
    is_bot: bool,
) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann", bot=is_bot)
        said = await emulator.say(emulator.channel_id, ann, "why")
        opened = await emulator.open_thread(said, ann, "Why")
        await until(lambda: "THREAD_CREATE" in bot.heard)
        thread = bot.get_channel(int(opened))
        before = await bot.fetch_channel(int(opened))
        await bot.place(opened).send("because")
        after = await bot.fetch_channel(int(opened))

    assert isinstance(thread, discord.Thread)
    assert isinstance(before, discord.Thread)
    assert isinstance(after, discord.Thread)
    assert (str(thread.owner_id), thread.name) == (ann, "Why")
    assert (before.me, after.me is None) == (None, False)


async def test_a_deleted_thread_is_gone_with_all_that_stood_in_it() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        question = await bot.next_message()
        thread = await question.create_thread(name="Why")
        message = await thread.send("one")
        await emulator.delete_channel(said)
        await until(lambda: "THREAD_DELETE" in bot.heard)

        with raises(10003):
            await thread.send("two")
        with raises(10003):
            await message.edit(content="two")
        with raises(10003):
            await bot.fetch_channel(thread.id)
        with raises(160004):
            await question.create_thread(name="Again")
        found = await bot.http.get_message(int(emulator.channel_id), int(said))

    assert "thread" not in found
    assert emulator.thread_of(said) is None


async def test_a_deleted_channel_is_gone() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        channel = emulator.channel("other")
        await emulator.delete_channel(channel)
        await until(lambda: "CHANNEL_DELETE" in bot.heard)
        with raises(10003):
            await bot.place(channel).send("one")


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
            await bot.http.edit_channel(int(emulator.channel_id), archived=False)


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


async def test_a_bot_hears_of_a_sweep_once() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        said = [await emulator.say(emulator.channel_id, ann, text) for text in ("one", "two")]
        await emulator.sweep(*said)
        await until(lambda: "MESSAGE_DELETE_BULK" in bot.heard)

    assert emulator.screen(emulator.channel_id) == []
    assert "MESSAGE_DELETE" not in bot.heard


async def test_a_bot_hears_other_bots() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await emulator.say(emulator.channel_id, emulator.user("other", bot=True), "beep")
        heard = await bot.next_message()

    assert heard.author.bot
    assert heard.author != bot.user


async def test_files_stand_under_a_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        await emulator.say(emulator.channel_id, ann, "", files=("cat.png", "notes"))
        heard = await bot.next_message()

    assert heard.content == ""
    assert [file.filename for file in heard.attachments] == ["cat.png", "notes"]
    assert heard.attachments[0].content_type == "image/png"
    assert emulator.screen(emulator.channel_id)[0].files == ("cat.png", "notes")


async def test_a_forward_keeps_what_it_found() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why", files=("cat.png",))
        forwarded = await emulator.forward(emulator.dm(ann), ann, said)
        await emulator.edit(said, "who")
        await bot.next_message()
        heard = await bot.next_message()

    assert (str(heard.id), heard.content) == (forwarded, "")
    assert heard.reference is not None
    assert heard.reference.type == discord.MessageReferenceType.forward
    assert str(heard.reference.message_id) == said
    assert heard.message_snapshots[0].content == "why"
    assert heard.message_snapshots[0].attachments[0].filename == "cat.png"
    assert [one.text for one in emulator.screen(emulator.dm(ann))] == ["why"]


async def test_a_forward_is_veiled_as_any_text_is() -> None:
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=BLIND, listens=True) as bot,
    ):
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why", files=("cat.png",))
        await emulator.forward(emulator.channel_id, ann, said)
        heard = [await bot.next_message() for _ in range(2)]

    assert heard[0].attachments == []
    assert heard[1].message_snapshots[0].content == ""
    assert heard[1].message_snapshots[0].attachments == []


async def test_an_event_can_come_again() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        await emulator.redeliver(said)
        heard = [await bot.next_message(), await bot.next_message()]

    assert [str(one.id) for one in heard] == [said, said]


async def test_any_event_can_be_told() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        await emulator.tell("MESSAGE_CREATE", emulator.event_of(said) | {"id": "99"})
        heard = [await bot.next_message(), await bot.next_message()]

    assert [one.content for one in heard] == ["why", "why"]
    assert heard[1].id == 99


async def test_a_wrong_token_is_refused() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        wrong = await http.get("users/@me", headers={"Authorization": "Bot wrong"})
        right = await http.get("users/@me")

    assert (wrong.status, right.status) == (401, 200)


async def test_leaving_names_the_calls_that_are_not_emulated() -> None:
    async def pin() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            await http.put("channels/1/pins/2")

    with pytest.raises(AssertionError, match="PUT /channels/1/pins/2"):
        await pin()


async def test_leaving_names_what_the_openapi_document_forbids() -> None:
    if specs.load("discord-openapi.json") is None:
        pytest.skip(specs.ABSENT)

    async def send() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            path = f"channels/{emulator.channel_id}/messages"
            await http.post(path, json={"content": "x", "flags": "many"})

    with pytest.raises(AssertionError, match=r"\$\.flags: 'many' is not"):
        await send()


def test_the_document_holds_for_the_emulator_too() -> None:
    if specs.load("discord-openapi.json") is None:
        pytest.skip(specs.ABSENT)
    route = ("POST", "/channels/{channel_id}/messages")

    wrong = [list(spec.answer_problems(*route, 200, {"id": 1})) for _ in range(2)]
    late = list(spec.answer_problems(*route, 429, {"message": "slow down"}))
    unknown = list(spec.answer_problems(*route, 302, {}))
    told = list(spec.event_problems("CHANNEL_CREATE", {"id": "1", "oddity": 1}))

    assert wrong[0] == wrong[1]
    assert f"the emulator answers {' '.join(route)} with 200: $: 'author' is a required" in str(
        wrong
    )
    assert "'retry_after' is a required property" in str(late)
    assert "there is no such answer" in str(unknown)
    assert "the emulator tells CHANNEL_CREATE: oddity is unknown" in told


async def test_leaving_names_what_the_emulator_itself_says_wrongly() -> None:
    if specs.load("discord-openapi.json") is None:
        pytest.skip(specs.ABSENT)

    async def stray() -> None:
        async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
            await register(bot)
            emulator.commands[0]["name"] = 7
            await bot.tree.fetch_commands()

    async def babble() -> None:
        async with DiscordEmulator() as emulator:
            emulator.channel(7)  # type: ignore[arg-type]

    with pytest.raises(AssertionError, match=r"the emulator answers GET .*name: 7 is"):
        await stray()
    with pytest.raises(AssertionError, match=r"the emulator tells CHANNEL_CREATE: .*name: 7 is"):
        await babble()


async def test_an_error_on_the_way_out_is_not_hidden() -> None:
    async def stumble() -> None:
        async with DiscordEmulator() as emulator:
            emulator.unknown.append("GET /nothing")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stumble()
