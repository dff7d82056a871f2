"""What the emulated Discord refuses, rule by rule, over bare HTTP where the library hides it."""

from __future__ import annotations

import json
import re

import aiohttp
import discord
import pytest

from tests.emulators import specs
from tests.emulators.discord import DiscordEmulator, Limits
from tests.support.discord_bot import (
    BLIND,
    DiscordBot,
    ask_and_defer,
    bot_of,
    http_of,
    raises,
    register,
)
from tests.support.waiting import until

needs_specs = pytest.mark.skipif(specs.load("discord-openapi.json") is None, reason=specs.ABSENT)


async def sent(
    http: aiohttp.ClientSession, path: str, body: object
) -> tuple[int, dict[str, object]]:
    """POST this; return the status, and the body of an answer that has one."""
    async with http.post(path, json=body) as answer:
        return answer.status, {} if answer.status == 204 else await answer.json()


async def used(emulator: DiscordEmulator, bot: DiscordBot) -> discord.Interaction[DiscordBot]:
    """Return an interaction of /ask that nobody answered yet."""
    await register(bot)
    await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
    return await bot.next_interaction()


# Forms


@pytest.mark.parametrize("name", ["", "x" * 101])
async def test_a_thread_has_a_name_of_1_to_100_characters(name: str) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        path = f"channels/{emulator.channel_id}/messages/{said}/threads"
        status, error = await sent(http, path, {"name": name})
        emulator.violations.clear()

    assert (status, error["code"]) == (400, 50035)
    assert "name" in json.dumps(error["errors"])
    assert emulator.thread_of(said) is None


async def test_commands_have_names_of_their_own() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        command = {"name": "ask", "description": "Ask"}
        path = f"applications/{emulator.application_id}/commands"
        async with http.put(path, json=[command, command]) as answer:
            error = await answer.json()

    assert (answer.status, error["code"]) == (400, 50035)
    assert emulator.commands == []


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_the_commands_of_another_application_are_not_for_the_bot(method: str) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        body: list[object] | None = [] if method == "PUT" else None
        async with http.request(method, "applications/1/commands", json=body) as answer:
            error = await answer.json()

    assert (answer.status, error["code"]) == (403, 20012)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=101", "NUMBER_TYPE_MAX"),
        ("limit=0", "NUMBER_TYPE_MIN"),
        ("limit=abc", "NUMBER_TYPE_COERCE"),
        ("before=abc", "NUMBER_TYPE_COERCE"),
        ("after=-1", "NUMBER_TYPE_COERCE"),
    ],
)
async def test_a_listing_takes_only_numbers_that_fit(query: str, code: str) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        async with http.get(f"channels/{emulator.channel_id}/messages?{query}") as answer:
            error = await answer.json()
        if specs.load("discord-openapi.json"):
            assert query.partition("=")[0] in emulator.violations[0]
        emulator.violations.clear()

    assert (answer.status, error["code"]) == (400, 50035)
    assert code in json.dumps(error["errors"])


@pytest.mark.parametrize(("may_be_gone", "status"), [(True, 200), (False, 400)])
async def test_a_reply_to_nothing_is_shown_only_where_that_is_allowed(
    may_be_gone: bool, status: int
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        reference = {"message_id": "1", "fail_if_not_exists": not may_be_gone}
        body = {"content": "because", "message_reference": reference}
        answer, _ = await sent(http, f"channels/{emulator.channel_id}/messages", body)

    shown = [(one.text, one.reply_to) for one in emulator.screen(emulator.channel_id)]
    assert answer == status
    assert shown == ([("because", None)] if may_be_gone else [])


async def test_a_nonce_is_its_authors_own() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        await emulator.say(emulator.channel_id, emulator.user("ann"), "one", nonce="same")
        body = {"content": "two", "nonce": "same", "enforce_nonce": True}
        await sent(http, f"channels/{emulator.channel_id}/messages", body)

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one", "two"]


# Whom a text calls


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        (None, True),
        ({"parse": []}, False),
        ({"parse": [], "replied_user": False}, False),
        ({"parse": [], "replied_user": True}, True),
    ],
)
async def test_a_reply_tells_whom_it_answers_unless_that_is_forbidden(
    allowed: dict[str, object] | None, told: bool
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why")
        body = {"content": "because", "message_reference": {"message_id": said}}
        guard = {"allowed_mentions": allowed} if allowed else {}
        _, shown = await sent(http, f"channels/{emulator.channel_id}/messages", body | guard)

    mentioned = shown["mentions"]
    assert isinstance(mentioned, list)
    assert [one["id"] for one in mentioned] == ([ann] if told else [])


async def test_a_user_is_mentioned_once() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why")
        body = {"content": f"<@{ann}> <@!{ann}>", "message_reference": {"message_id": said}}
        _, shown = await sent(http, f"channels/{emulator.channel_id}/messages", body)

    mentioned = shown["mentions"]
    assert isinstance(mentioned, list)
    assert [one["id"] for one in mentioned] == [ann]


async def test_a_role_can_be_mentioned() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        await until(lambda: bot.guilds)
        role = emulator.role("helpers")
        text = f"<@&{role}> <@&{role}> <@&7> `<@&8>`"
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), text)
        heard = await bot.next_message()

    assert [(str(one.id), one.name) for one in heard.role_mentions] == [(role, "helpers")]
    assert emulator.event_of(said)["mention_roles"] == [role]
    assert heard.mentions == []


async def test_a_role_that_was_there_before_the_bot_is_known_to_it() -> None:
    async with DiscordEmulator() as emulator:
        role = emulator.role("helpers")
        async with bot_of(emulator, listens=True) as bot:
            await until(lambda: bot.guilds)
            found = bot.guilds[0].get_role(int(role))

    assert found is not None
    assert found.name == "helpers"


# What is shown to whom


async def test_an_answered_message_is_veiled_as_any_text_is() -> None:
    async with DiscordEmulator(message_content=False) as emulator, http_of(emulator) as http:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "secret")
        body = {"content": "because", "message_reference": {"message_id": said}}
        _, shown = await sent(http, f"channels/{emulator.channel_id}/messages", body)

    answered = shown["referenced_message"]
    assert isinstance(answered, dict)
    assert (shown["content"], answered["id"], answered["content"]) == ("because", said, "")


async def test_an_ephemeral_follow_up_is_nothing_for_the_channel() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await ask_and_defer(emulator, bot)
        await interaction.edit_original_response(content="one")
        path = f"webhooks/{emulator.application_id}/{interaction.token}"
        _, shown = await sent(http, path, {"content": "psst", "flags": 64})
        listed = [one async for one in bot.place(emulator.channel_id).history()]

    assert [one.ephemeral for one in emulator.screen(emulator.channel_id)] == [False, True]
    assert shown["flags"] == 64
    assert [one.content for one in listed] == ["one"]
    assert bot.heard.count("MESSAGE_CREATE") == 1


@pytest.mark.parametrize("disabled", [True, False])
async def test_a_disabled_button_cannot_be_pressed(disabled: bool) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        button = {"type": 2, "style": 2, "custom_id": "go", "label": "Go", "disabled": disabled}
        body = {"content": "x", "components": [{"type": 1, "components": [button]}]}
        await sent(http, f"channels/{emulator.channel_id}/messages", body)
        (shown,) = emulator.screen(emulator.channel_id)
        if disabled:
            with pytest.raises(AssertionError, match="only the buttons"):
                await emulator.click(shown.id, emulator.user("ann"), "go")

    assert shown.buttons == (() if disabled else ("go",))


@pytest.mark.parametrize(
    ("change", "suppressed"),
    [({"content": "two"}, True), ({"content": "two", "flags": 4}, True), ({"flags": 0}, False)],
)
async def test_previews_stay_suppressed_until_an_edit_says_otherwise(
    change: dict[str, object], suppressed: bool
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        await sent(http, path, {"content": "one", "flags": 4})
        (before,) = emulator.screen(emulator.channel_id)
        await http.patch(f"{path}/{before.id}", json=change)

    (after,) = emulator.screen(emulator.channel_id)
    assert (before.suppressed, after.suppressed) == (True, suppressed)


@pytest.mark.parametrize("partial", [True, False])
async def test_the_librarys_edit_of_a_whole_message_brings_previews_back(partial: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        place = bot.place(emulator.channel_id)
        message = await place.send("one", suppress_embeds=True)
        await (place.get_partial_message(message.id) if partial else message).edit(content="two")

    assert emulator.screen(emulator.channel_id)[0].suppressed is partial


async def test_an_edit_can_suppress_previews() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        _, shown = await sent(http, path, {"content": "one"})
        await http.patch(f"{path}/{shown['id']}", json={"flags": 4})

    assert emulator.screen(emulator.channel_id)[0].suppressed


# Interactions


async def test_an_interaction_is_answered_with_its_own_token() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await used(emulator, bot)
        status, error = await sent(
            http, f"interactions/{interaction.id}/wrong/callback", {"type": 5}
        )

    assert (status, error["code"]) == (404, 10062)
    assert emulator.original(str(interaction.id)) is None


async def test_a_webhook_bears_the_id_of_the_application() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await ask_and_defer(emulator, bot)
        status, error = await sent(http, f"webhooks/1/{interaction.token}", {"content": "x"})

    assert (status, error["code"]) == (404, 10015)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_webhook_reaches_only_its_own_messages(method: str) -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await ask_and_defer(emulator, bot)
        other = await bot.place(emulator.channel_id).send("mine")
        path = f"webhooks/{emulator.application_id}/{interaction.token}/messages/{other.id}"
        body = {"content": "yours"} if method == "PATCH" else None
        async with http.request(method, path, json=body) as answer:
            error = await answer.json()

    assert (answer.status, error["code"]) == (404, 10008)
    assert emulator.screen(emulator.channel_id)[-1].text == "mine"


async def test_an_interaction_of_a_deleted_channel_is_not_answered() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await used(emulator, bot)
        await emulator.delete_channel(emulator.channel_id)
        path = f"interactions/{interaction.id}/{interaction.token}/callback"
        status, error = await sent(http, path, {"type": 5})

    assert (status, error["code"]) == (404, 10003)


async def test_a_command_is_used_with_all_that_it_needs() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        await register(bot)
        with pytest.raises(AssertionError, match=r"/ask needs prompt"):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask")


# Threads and channels


async def test_a_thread_begins_with_what_points_at_its_message() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "why")
        thread = await emulator.open_thread(said, ann, "Why")
        await bot.place(thread).send("because")
        last, first = [one async for one in bot.place(thread).history()]
        with raises(50021):
            await first.edit(content="mine")
        with raises(50021):
            await first.delete()

    assert first.type is discord.MessageType.thread_starter_message
    assert (first.content, last.content) == ("", "because")
    assert first.reference is not None
    assert str(first.reference.message_id) == said
    assert [one.text for one in emulator.screen(thread)] == ["because"]
    assert [one.text for one in emulator.timeline(thread)] == ["because"]
    assert bot.heard.count("MESSAGE_CREATE") == 2


async def test_a_thread_begins_veiled_as_any_text_is() -> None:
    async with (
        DiscordEmulator(message_content=False) as emulator,
        bot_of(emulator, intents=BLIND) as bot,
        http_of(emulator) as http,
    ):
        ann = emulator.user("ann")
        said = await emulator.say(emulator.channel_id, ann, "secret")
        thread = await emulator.open_thread(said, ann, "Why")
        async with http.get(f"channels/{thread}/messages") as answer:
            (first,) = await answer.json()
        del bot

    assert (first["type"], first["referenced_message"]["content"]) == (21, "")


async def test_a_deleted_channel_takes_its_threads_along() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator, listens=True) as bot:
        channel, ann = emulator.channel("other"), emulator.user("ann")
        said = await emulator.say(channel, ann, "why")
        thread = await emulator.open_thread(said, ann, "Why")
        await bot.place(thread).send("because")
        await emulator.delete_channel(channel)
        await until(lambda: "CHANNEL_DELETE" in bot.heard)
        for place in (channel, thread):
            with raises(10003):
                await bot.place(place).send("one")

    for place in (channel, thread):
        assert emulator.screen(place) == []
        assert [one.what for one in emulator.timeline(place)] == ["post", "delete"]
    assert emulator.thread_of(said) is None
    assert "THREAD_DELETE" not in bot.heard


async def test_a_bot_that_comes_is_told_of_active_threads_only() -> None:
    async with DiscordEmulator() as emulator:
        ann = emulator.user("ann")
        active, archived = [
            await emulator.open_thread(
                await emulator.say(emulator.channel_id, ann, "why"), ann, name
            )
            for name in ("active", "archived")
        ]
        await emulator.archive(archived)
        async with bot_of(emulator, listens=True) as bot:
            await until(lambda: bot.guilds)
            known = [str(one.id) for one in bot.guilds[0].threads]

    assert known == [active]


# Limits


async def test_calls_that_came_too_early_count_for_the_ban() -> None:
    limits = Limits(create=(1, 60.0), invalid=(2, 600.0))
    async with DiscordEmulator(limits=limits) as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        early = [await http.post(path, json={"content": "x"}) for _ in range(3)]
        banned = await http.get("users/@me")

    assert [one.status for one in early] == [200, 429, 429]
    assert banned.headers["Server"] == "cloudflare"


async def test_limits_can_be_replaced() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits = Limits(everything=(1, 60.0), invalid=(2, 600.0))
        answers = [await http.get("users/@me") for _ in range(4)]

    assert [one.status for one in answers] == [200, 429, 429, 429]
    assert answers[-1].headers["Server"] == "cloudflare"


# What leaving tells


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "channels/1/messages?sort=2", None, r"GET /channels/1/messages \?sort"),
        ("PATCH", "channels/1", {"name": "else"}, "PATCH /channels/1 with .'name'"),
        ("PATCH", "channels/1", {"archived": True}, "PATCH /channels/1 with .'archived'"),
        ("POST", "interactions/1/x/callback", {"type": 12}, "callback of type 12"),
        ("PUT", "channels/1/pins/2", None, "PUT /channels/1/pins/2"),
    ],
)
@pytest.mark.parametrize("fails", [True, False])
async def test_leaving_names_what_is_not_emulated(
    method: str, path: str, body: object, named: str, fails: bool
) -> None:
    async def stray() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            if fails:
                emulator.fail(f"{method} ")
            await http.request(method, path, json=body)

    with pytest.raises(AssertionError, match=named):
        await stray()


async def test_leaving_names_a_body_that_is_not_json() -> None:
    async def upload() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            form = aiohttp.FormData(default_to_multipart=True)
            form.add_field("payload_json", '{"content": "x"}')
            await http.post(f"channels/{emulator.channel_id}/messages", data=form)

    with pytest.raises(AssertionError, match="messages as multipart/form-data"):
        await upload()


@needs_specs
@pytest.mark.parametrize("how", ["well", "fault", "limit", "ban"])
@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("messages", {"content": 7}, r"\$\.content: 7 is not"),
        ("messages", None, "the body is missing"),
        ("messages?odd=1", {"content": "x"}, r"\?odd: there is no such parameter"),
    ],
)
async def test_a_call_is_held_against_the_document_whatever_becomes_of_it(
    path: str, body: object, problem: str, how: str
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        if how == "fault":
            emulator.fail("POST .*/messages")
        if how == "limit":
            emulator.limits.create = (0, 60.0)
        if how == "ban":
            emulator.limits.invalid = (1, 600.0)
            await http.get("users/@me", headers={"Authorization": "Bot wrong"})
        await http.post(f"channels/{emulator.channel_id}/{path}", json=body)
        found = " ".join(emulator.violations)
        emulator.violations.clear()
        emulator.unknown.clear()
        emulator.heal()

    assert re.search(problem, found)


async def test_leaving_tells_that_the_emulator_failed() -> None:
    async def stumble() -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            emulator.commands.append({"name": object()})
            await http.get(f"applications/{emulator.application_id}/commands")

    with pytest.raises(AssertionError, match=r"the emulator failed: GET .*/commands: TypeError"):
        await stumble()


async def test_leaving_tells_that_the_gateway_failed() -> None:
    async def stumble() -> None:
        async with DiscordEmulator() as emulator, bot_of(emulator, listens=True):
            await emulator.tell("TYPING_START", {"odd": object()})

    with pytest.raises(AssertionError, match="the emulator failed: the gateway: TypeError"):
        await stumble()


async def test_leaving_names_a_fault_that_no_call_met() -> None:
    async def forget(*, heals: bool) -> None:
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            emulator.fail("GET /users/@me", times=99)
            emulator.fail("GET /nothing")
            await http.get("users/@me")
            if heals:
                emulator.heal()

    await forget(heals=True)
    with pytest.raises(AssertionError, match=r"no call met: \['GET /nothing'\]"):
        await forget(heals=False)


async def test_a_call_is_recorded_by_the_name_at_which_it_fails() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        await http.get("users/@me")
        (asked,) = emulator.requests
        emulator.fail(f"^{asked.call}$")
        failed = await http.get("users/@me")

    assert asked.call == "GET /users/@me"
    assert (asked.status, failed.status) == (200, 500)
