"""The emulated Discord keeps Discord's rules, seen through bare HTTP and the real discord.py."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import aiohttp
import discord
import pytest

from tests.emulators import specs
from tests.emulators.discord import DiscordEmulator, spec
from tests.support.discord_bot import BLIND, bot_of, http_of, raises, register, stop_button
from tests.support.waiting import until

needs_specs = pytest.mark.skipif(specs.load("discord-openapi.json") is None, reason=specs.ABSENT)
Json = Any


async def sent(
    http: aiohttp.ClientSession, path: str, body: object, *, method: str = "POST"
) -> tuple[int, Json]:
    """Call with this; return the status, and the body of an answer that has one."""
    async with http.request(method, path, json=body) as answer:
        return answer.status, {} if answer.status == 204 else await answer.json()


def row(*buttons: Json) -> Json:
    return {"type": 1, "components": list(buttons)}


def button(custom_id: str, label: str = "Go", **more: object) -> Json:
    return {"type": 2, "style": 2, "custom_id": custom_id, "label": label, **more}


def command(**more: object) -> Json:
    return {"name": "ask", "type": 1, "description": "Ask", **more}


def option(name: str, **more: object) -> Json:
    return {"name": name, "type": 3, "description": "One", **more}


MESSAGES = "channels/{channel}/messages"
OWN, HERS = MESSAGES + "/{own}", MESSAGES + "/{hers}"
COMMANDS, HOOK = "applications/{app}/commands", "webhooks/{app}/{token}"
SIX = [button(str(number)) for number in range(6)]
MANY = [str(number) for number in range(101)]
BAD_LENGTH, DUPLICATE = "BASE_TYPE_BAD_LENGTH", "COMPONENT_CUSTOM_ID_DUPLICATED"


@pytest.mark.parametrize(
    ("call", "body", "status", "code", "word"),
    [
        ("GET channels/1", None, 404, 10003, ""),
        ("POST channels/1/messages", {"content": "x"}, 404, 10003, ""),
        ("GET channels/{other}/messages/{own}", None, 404, 10008, ""),
        ("PATCH channels/{channel}", {"archived": False}, 400, 50024, ""),
        (f"POST {MESSAGES}", {"content": " "}, 400, 50006, ""),
        (f"PATCH {OWN}", {"content": None}, 400, 50006, ""),
        (f"POST {MESSAGES}", {"content": "x" * 2001}, 400, 50035, "content"),
        (f"PATCH {OWN}", {"content": "x" * 2001}, 400, 50035, "content"),
        (f"POST {MESSAGES}", {"content": "x", "nonce": "n" * 26}, 400, 50035, "nonce"),
        (f"PATCH {HERS}", {"content": "mine"}, 403, 50005, ""),
        (f"DELETE {HERS}", None, 403, 50013, ""),
        *(
            (f"POST {MESSAGES}", {"content": "x", key: value}, 400, 50035, word)
            for key, value, word in (
                ("message_reference", {"message_id": "1"}, "message_reference"),
                ("allowed_mentions", {"parse": ["users"], "users": ["7"]}, "allowed_mentions"),
                ("allowed_mentions", {"parse": ["roles"], "roles": ["7"]}, "allowed_mentions"),
                ("allowed_mentions", {"parse": [], "users": MANY}, "users"),
                ("components", [row(one) for one in SIX], BAD_LENGTH),
                ("components", [row(*SIX)], BAD_LENGTH),
                ("components", [row()], BAD_LENGTH),
                ("components", [row(button("x" * 101))], BAD_LENGTH),
                ("components", [row(button(""))], BAD_LENGTH),
                ("components", [row(button("x", "x" * 81))], "BASE_TYPE_MAX_LENGTH"),
                ("components", [row(button("x"), button("x"))], DUPLICATE),
                ("components", [row(button("x")), row(button("x"))], DUPLICATE),
            )
        ),
        *(
            (f"GET {MESSAGES}?{query}", None, 400, 50035, f"NUMBER_TYPE_{code}")
            for query, code in (
                ("limit=101", "MAX"),
                ("limit=0", "MIN"),
                ("limit=abc", "COERCE"),
                ("before=abc", "COERCE"),
                ("after=-1", "COERCE"),
            )
        ),
        (f"POST {HERS}/threads", {"name": ""}, 400, 50035, "name"),
        (f"POST {HERS}/threads", {"name": "x" * 101}, 400, 50035, "name"),
        ("POST channels/{dm}/messages/{private}/threads", {"name": "Why"}, 400, 50024, ""),
        ("GET applications/1/commands", None, 403, 20012, ""),
        ("PUT applications/1/commands", [], 403, 20012, ""),
        *(
            (f"PUT {COMMANDS}", commands, 400, 50035, "")
            for commands in (
                [command(), command()],
                [command(name="Ask")],
                [command(name="ask me")],
                [command(name_localizations={"de": "Frag"})],
                [{"name": "ask", "type": 1}],
                [command(options=[option("one"), option("two", required=True)])],
                [
                    command(
                        options=[
                            option(name, name_localizations={"de": "gleich"})
                            for name in ("one", "two")
                        ]
                    )
                ],
            )
        ),
        ("POST interactions/{interaction}/wrong/callback", {"type": 5}, 404, 10062, ""),
        ("POST interactions/{interaction}/{token}/callback", {"type": 5}, 400, 40060, ""),
        ("POST webhooks/1/{token}", {"content": "x"}, 404, 10015, ""),
        (f"GET {HOOK}/messages/{{own}}", None, 404, 10008, ""),
        (f"PATCH {HOOK}/messages/{{own}}", {"content": "x"}, 404, 10008, ""),
        (f"DELETE {HOOK}/messages/{{own}}", None, 404, 10008, ""),
    ],
)
async def test_what_discord_refuses_is_refused_with_its_code(
    call: str, body: object, status: int, code: int, word: str
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        ann = emulator.user("ann")
        ids = {"app": emulator.application_id, "channel": emulator.channel_id}
        ids |= {"dm": emulator.dm(ann), "other": emulator.channel("other")}
        ids["hers"] = await emulator.say(ids["channel"], ann, "hers")
        ids["private"] = await emulator.say(ids["dm"], ann, "private")
        _, own = await sent(http, MESSAGES.format(**ids), {"content": "mine"})
        ids["own"] = str(own["id"])
        await sent(http, COMMANDS.format(**ids), [command()], method="PUT")
        before = emulator.commands[:]
        ids["interaction"] = await emulator.slash(ids["channel"], ann, "ask")
        ids["token"] = emulator.token_of(ids["interaction"])
        answer = "interactions/{interaction}/{token}/callback".format(**ids)
        await sent(http, answer, {"type": 5})

        method, path = call.format(**ids).split()
        found = await sent(http, path, body, method=method)
        emulator.violations.clear()

    assert (found[0], found[1]["code"]) == (status, code)
    assert word in json.dumps(found[1].get("errors", ""))
    assert [one.text for one in emulator.screen(ids["channel"])] == ["hers", "mine", ""]
    assert emulator.commands == before


async def test_what_is_at_the_limit_is_taken() -> None:
    names = [f"{number}".ljust(100, "x") for number in range(25)]
    rows = [row(*(button(name, "x" * 80) for name in names[at : at + 5])) for at in range(0, 25, 5)]
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body = {"content": f" {'x' * 2000}\n", "components": rows, "nonce": "n" * 25}
        await sent(http, f"channels/{emulator.channel_id}/messages", body)

    (shown,) = emulator.screen(emulator.channel_id)
    assert (shown.text, shown.buttons) == ("x" * 2000, tuple(names))


async def test_a_wrong_token_is_refused() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        wrong = await http.get("users/@me", headers={"Authorization": "Bot wrong"})

    assert wrong.status == 401


async def test_the_screen_and_the_timeline_have_what_a_person_saw() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        begun = time.monotonic()
        place = bot.place(emulator.channel_id)
        await place.typing()
        message = await place.send("one", view=stop_button())
        await message.edit(content="one two", view=None)
        (shown,) = emulator.screen(emulator.channel_id)
        await message.delete()
        with raises(10008):
            await message.fetch()

    moments = emulator.timeline(emulator.channel_id)
    seen = [(moment.what, moment.message, moment.text) for moment in moments]
    changes = [("post", shown.id, "one"), ("edit", shown.id, "one two"), ("delete", shown.id, "")]
    assert (shown.text, shown.edited, shown.buttons) == ("one two", True, ())
    assert emulator.states(shown.id) == ["one", "one two"]
    assert seen == [("sign", "", ""), *changes]
    assert begun <= moments[0].at <= moments[-1].at <= time.monotonic()
    assert emulator.screen(emulator.channel_id) == []


async def test_an_enforced_nonce_returns_its_authors_first_message_for_some_minutes() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        place = bot.place(emulator.channel_id)
        await emulator.say(emulator.channel_id, emulator.user("ann"), "ann", nonce="turn-0")
        first = await place.send("one", nonce="turn-0")
        again = await place.send("two", nonce="turn-0")
        other = await place.send("three", nonce="turn-1")
        emulator.clock.advance(181)
        later = await place.send("four", nonce="turn-0")

    assert len({first.id, other.id, later.id}) == 3
    assert again.id == first.id
    texts = [one.text for one in emulator.screen(emulator.channel_id)]
    assert texts == ["ann", "one", "three", "four"]


# Whom a text calls


@pytest.mark.parametrize(
    ("text", "allowed", "pinged"),
    [
        ("@everyone <@7>", None, ["@everyone", "<@7>"]),
        ("@here <@7> <@&8>", {"parse": []}, []),
        ("@here <@7> <@&8>", {"parse": ["users"]}, ["<@7>"]),
        ("@here <@!7> <@9>", {"parse": [], "users": ["7"]}, ["<@!7>"]),
        ("@here <@&8>", {"parse": ["everyone", "roles"]}, ["@here", "<@&8>"]),
        ("`@everyone` <@7>", None, ["<@7>"]),
        ("``a ` <@7>`` <@8>", None, ["<@8>"]),
        ("```\n<@7>\n``` <@8>", None, ["<@8>"]),
        ("```py\n<@7>``` <@8>", None, ["<@8>"]),
        ("```\n<@7>\n", None, ["<@7>"]),
        ("`<@7>\n", None, ["<@7>"]),
        ("\\`<@7>`", None, ["<@7>"]),
        ("``<@7>`", None, ["<@7>"]),
    ],
)
@pytest.mark.parametrize("edited", [False, True])
async def test_a_mention_outside_of_code_pings_unless_it_is_forbidden(
    text: str, allowed: Json, pinged: list[str], *, edited: bool
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        guard = {"allowed_mentions": allowed} if allowed else {}
        path = f"channels/{emulator.channel_id}/messages"
        first = {"content": "x", "allowed_mentions": {"parse": []}} if edited else {}
        _, shown = await sent(http, path, first or {"content": text, **guard})
        if edited:
            await sent(http, f"{path}/{shown['id']}", {"content": text, **guard}, method="PATCH")

    assert emulator.pings == pinged
    assert emulator.unguarded == ([] if allowed else [text.strip()])


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        (None, True),
        ({"parse": []}, False),
        ({"parse": [], "replied_user": False}, False),
        ({"parse": [], "replied_user": True}, True),
    ],
)
async def test_a_reply_mentions_whom_it_answers_unless_that_is_forbidden(
    allowed: Json, *, told: bool
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        ann, ben = emulator.user("ann"), emulator.user("ben")
        said = await emulator.say(emulator.channel_id, ann, "why")
        body = {"content": f"<@{ben}> <@!{ben}>", "message_reference": {"message_id": said}}
        guard = {"allowed_mentions": allowed} if allowed else {}
        _, shown = await sent(http, f"channels/{emulator.channel_id}/messages", body | guard)

    assert [one["id"] for one in shown["mentions"]] == [ben, *([ann] if told else [])]
    assert emulator.screen(emulator.channel_id)[1].reply_to == said


async def test_a_reply_to_nothing_is_shown_where_that_is_allowed() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        reference = {"message_id": "1", "fail_if_not_exists": False}
        body = {"content": "because", "message_reference": reference}
        await sent(http, f"channels/{emulator.channel_id}/messages", body)

    shown = [(one.text, one.reply_to) for one in emulator.screen(emulator.channel_id)]
    assert shown == [("because", None)]


async def test_a_role_can_be_mentioned() -> None:
    async with DiscordEmulator() as emulator:
        early = emulator.role("early")
        async with bot_of(emulator, listens=True) as bot:
            await until(lambda: bot.guilds)
            late = emulator.role("late")
            text = f"<@&{late}> <@&{early}> <@&{late}> <@&7> `<@&8>` `{emulator.bot_mention}`"
            said = await emulator.say(emulator.channel_id, emulator.user("ann"), text)
            heard = await bot.next_message()

    assert {one.name for one in heard.role_mentions} == {"early", "late"}
    assert emulator.event_of(said)["mention_roles"] == [late, early]
    assert heard.mentions == []


@pytest.mark.parametrize(
    ("change", "suppressed"),
    [({"content": "two"}, True), ({"content": "two", "flags": 4}, True), ({"flags": 0}, False)],
)
async def test_previews_stay_suppressed_until_an_edit_says_otherwise(
    change: Json, *, suppressed: bool
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        _, shown = await sent(http, path, {"content": "one", "flags": 4})
        await sent(http, f"{path}/{shown['id']}", change, method="PATCH")

    assert emulator.screen(emulator.channel_id)[0].suppressed is suppressed


async def test_without_the_intent_only_what_concerns_the_bot_has_content() -> None:
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=BLIND, listens=True) as bot,
        http_of(emulator) as http,
    ):
        ann, channel = emulator.user("ann"), emulator.channel_id
        secret = await emulator.say(channel, ann, "secret", files=("cat.png",))
        await emulator.forward(channel, ann, secret)
        await emulator.say(channel, ann, f"{emulator.bot_mention} hi")
        await emulator.say(emulator.dm(ann), ann, "private")
        heard = [await bot.next_message() for _ in range(4)]
        reply = {"content": "mine", "message_reference": {"message_id": secret}}
        _, own = await sent(http, f"channels/{channel}/messages", reply)
        await emulator.say(channel, ann, "yes", reply_to=own["id"])
        heard += [await bot.next_message() for _ in range(2)]
        thread = await emulator.open_thread(secret, ann, "Why")
        _, first = await sent(http, f"channels/{thread}/messages", None, method="GET")
        _, listed = await sent(http, f"channels/{channel}/messages", None, method="GET")

    mention = f"{emulator.bot_mention} hi"
    assert [one.content for one in heard] == ["", "", mention, "private", "mine", "yes"]
    assert heard[0].attachments == heard[1].message_snapshots[0].attachments == []
    assert heard[1].message_snapshots[0].content == ""
    assert own["referenced_message"]["content"] == ""
    assert (first[0]["type"], first[0]["referenced_message"]["content"]) == (21, "")
    assert [one["content"] for one in listed] == ["yes", "mine", mention, "", ""]


# Threads


async def test_a_thread_bears_the_id_of_its_message_and_begins_with_what_points_at_it() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        message = await bot.next_message()
        thread = await message.create_thread(name="Why")
        await thread.send("because")
        last, first = [one async for one in thread.history()]
        with raises(160004):
            await message.create_thread(name="Again")
        with raises(50021):
            await first.edit(content="mine")
        with raises(50021):
            await first.delete()

    assert str(thread.id) == said == emulator.thread_of(said)
    assert first.type is discord.MessageType.thread_starter_message
    assert first.reference is not None
    assert (str(first.reference.message_id), first.content, last.content) == (said, "", "because")
    assert [one.text for one in emulator.screen(said)] == ["because"]
    assert [one.text for one in emulator.timeline(said)] == ["because"]
    assert [one.text for one in emulator.timeline(emulator.channel_id)] == ["why"]
    assert bot.heard.count("MESSAGE_CREATE") == 2


@pytest.mark.parametrize("is_bot", [True, False])
async def test_the_bot_takes_part_in_a_thread_of_others_when_it_writes(*, is_bot: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann", bot=is_bot)
        said = await emulator.say(emulator.channel_id, ann, "why")
        opened = await emulator.open_thread(said, ann, "Why")
        before: Json = await bot.fetch_channel(int(opened))
        await bot.place(opened).send("because")
        after: Json = await bot.fetch_channel(int(opened))

    assert (str(before.owner_id), before.parent_id) == (ann, int(emulator.channel_id))
    assert (before.me, after.me is None) == (None, False)


async def test_an_archived_thread_takes_no_edits_until_it_is_opened_again() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        message = await thread.send("one")
        await emulator.archive(said)
        with raises(50083):
            await message.edit(content="two")
        await thread.send("three")
        await message.edit(content="four")

        await emulator.archive(said)
        reopened = await thread.edit(archived=False)
        await message.edit(content="five")

        await emulator.archive(said, locked=True)
        with raises(50083):
            await thread.send("six")
        with raises(50013):
            await thread.edit(archived=False)

    assert not reopened.archived
    assert [one.text for one in emulator.screen(said)] == ["five", "three"]


@pytest.mark.parametrize("in_threads", [True, False])
async def test_writing_can_be_forbidden_in_a_channel_or_in_its_threads(*, in_threads: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        thread = await (await bot.next_message()).create_thread(name="Why")
        emulator.forbid_writing(emulator.channel_id, in_threads=in_threads)
        channel = bot.place(emulator.channel_id)
        forbidden, allowed = (thread, channel) if in_threads else (channel, thread)

        with raises(50013):
            await forbidden.send("one")
        await allowed.send("two")


async def test_a_bot_that_comes_is_told_of_active_threads_only() -> None:
    async with DiscordEmulator() as emulator:
        ann = emulator.user("ann")
        said = [await emulator.say(emulator.channel_id, ann, "why") for _ in range(2)]
        active, archived = [await emulator.open_thread(one, ann, "Why") for one in said]
        await emulator.archive(archived)
        async with bot_of(emulator, listens=True) as bot:
            await until(lambda: bot.guilds)
            known = [str(one.id) for one in bot.guilds[0].threads]

    assert known == [active]


# What leaving tells


@pytest.mark.parametrize(
    ("call", "body", "named"),
    [
        ("GET channels/1/messages?sort=2", None, r"GET /channels/1/messages \?sort"),
        ("PATCH channels/1", {"name": "else"}, "PATCH /channels/1 with .'name'"),
        ("PATCH channels/1", {"archived": True}, "PATCH /channels/1 with .'archived'"),
        ("POST interactions/1/x/callback", {"type": 12}, "callback of type 12"),
        ("PUT channels/1/pins/2", None, "PUT /channels/1/pins/2"),
        ("POST channels/1/messages", None, "messages as multipart/form-data"),
    ],
)
async def test_leaving_names_what_is_not_emulated(call: str, body: object, named: str) -> None:
    async def stray() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            method, path = call.split()
            form = aiohttp.FormData(default_to_multipart=True)
            form.add_field("payload_json", '{"content": "x"}')
            how: Json = {"data": form} if "multipart" in named else {"json": body}
            await http.request(method, path, **how)

    with pytest.raises(AssertionError, match=named):
        await stray()


@needs_specs
@pytest.mark.parametrize(
    ("path", "body", "how", "problem"),
    [
        ("messages", {"content": 7}, "well", r"\$\.content: 7 is not"),
        ("messages", None, "fault", "the body is missing"),
        ("messages?odd=1", {"content": "x"}, "limit", r"\?odd: there is no such parameter"),
    ],
)
async def test_a_call_is_held_against_the_document_whatever_becomes_of_it(
    path: str, body: object, how: str, problem: str
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        if how == "fault":
            emulator.fail("POST .*/messages")
        if how == "limit":
            emulator.limits.create = (0, 60.0)
        await http.post(f"channels/{emulator.channel_id}/{path}", json=body)
        found = " ".join(emulator.violations)
        emulator.violations.clear()
        emulator.unknown.clear()

    assert re.search(problem, found)


@needs_specs
def test_the_emulators_own_answers_and_events_are_held_against_the_document() -> None:
    route = ("POST", "/channels/{channel_id}/messages")

    wrong = [list(spec.answer_problems(*route, 200, {"id": 1})) for _ in range(2)]
    late = list(spec.answer_problems(*route, 429, {"message": "slow down"}))
    unknown = list(spec.answer_problems(*route, 302, {}))
    told = list(spec.event_problems("CHANNEL_CREATE", {"id": "1", "oddity": 1}))

    assert wrong[0] == wrong[1]
    assert "the emulator answers POST" in str(wrong)
    assert "with 200: $: 'author' is a required" in str(wrong)
    assert "'retry_after' is a required property" in str(late)
    assert "there is no such answer" in str(unknown)
    assert "the emulator tells CHANNEL_CREATE: oddity is unknown" in told


@needs_specs
async def test_leaving_names_what_the_emulator_itself_says_wrongly() -> None:
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


async def test_leaving_tells_that_the_emulator_failed() -> None:
    async def stumble() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            emulator.commands.append({"name": object()})
            await http.get(f"applications/{emulator.application_id}/commands")

    async def babble() -> None:
        async with DiscordEmulator() as emulator, bot_of(emulator, listens=True):
            await emulator.tell("TYPING_START", {"odd": object()})

    with pytest.raises(AssertionError, match=r"the emulator failed: GET .*/commands: TypeError"):
        await stumble()
    with pytest.raises(AssertionError, match="the emulator failed: the gateway: TypeError"):
        await babble()


async def test_leaving_names_a_fault_that_no_call_met_and_hides_no_other_error() -> None:
    async def forget(*, heals: bool, stumbles: bool = False) -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            emulator.fail("GET /users/@me", times=99)
            emulator.fail("GET /nothing")
            await http.get("users/@me")
            if stumbles:
                raise ZeroDivisionError
            if heals:
                emulator.heal()

    await forget(heals=True)
    with pytest.raises(AssertionError, match=r"no call met: \['GET /nothing'\]"):
        await forget(heals=False)
    with pytest.raises(ZeroDivisionError):
        await forget(heals=False, stumbles=True)
