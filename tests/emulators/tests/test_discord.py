"""The emulated Discord keeps Discord's rules, seen through bare HTTP and the real discord.py."""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
import pytest

from tests.emulators import specs
from tests.emulators.discord import DiscordEmulator, spec
from tests.support.discord_http import http_of, sent

needs_specs = pytest.mark.skipif(specs.load("discord-openapi.json") is None, reason=specs.ABSENT)
Json = Any


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
                [{"name": "ask", "type": 1}],
                [command(options=[option("one"), option("two", required=True)])],
                [command(options=[option("one"), option("one")])],
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


async def test_an_enforced_nonce_returns_its_authors_first_message_for_some_minutes() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"

        async def say(text: str, nonce: str) -> str:
            body = {"content": text, "nonce": nonce, "enforce_nonce": True}
            return str((await sent(http, path, body))[1]["id"])

        await emulator.say(emulator.channel_id, emulator.user("ann"), "ann", nonce="turn-0")
        first, again = await say("one", "turn-0"), await say("two", "turn-0")
        other = await say("three", "turn-1")
        emulator.clock.advance(181)
        later = await say("four", "turn-0")

    assert len({first, other, later}) == 3
    assert again == first
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


# Threads


async def test_an_archived_thread_takes_no_edits_until_it_is_opened_again() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        said = await emulator.say(emulator.channel_id, emulator.user("ann"), "why")
        opened = f"channels/{emulator.channel_id}/messages/{said}/threads"
        await sent(http, opened, {"name": "Why"})
        thread, messages = f"channels/{said}", f"channels/{said}/messages"
        message = f"{messages}/{(await sent(http, messages, {'content': 'one'}))[1]['id']}"

        async def code(path: str, method: str, **body: object) -> int:
            return int((await sent(http, path, body, method=method))[1].get("code", 0))

        await emulator.archive(said)
        codes = [await code(message, "PATCH", content="two")]
        codes.append(await code(messages, "POST", content="three"))
        codes.append(await code(message, "PATCH", content="four"))
        await emulator.archive(said)
        codes.append(await code(thread, "PATCH", archived=False))
        codes.append(await code(message, "PATCH", content="five"))
        await emulator.archive(said, locked=True)
        codes.append(await code(messages, "POST", content="six"))
        codes.append(await code(thread, "PATCH", archived=False))

    assert codes == [50083, 0, 0, 0, 0, 50083, 50013]
    assert [one.text for one in emulator.screen(said)] == ["five", "three"]


# What leaving tells


@pytest.mark.parametrize(
    ("call", "body", "named"),
    [
        ("GET channels/1/messages?sort=2", None, r"GET /channels/1/messages \?sort"),
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
        async with DiscordEmulator() as emulator, http_of(emulator) as http:
            path = f"applications/{emulator.application_id}/commands"
            await sent(http, path, [command()], method="PUT")
            emulator.commands[0]["name"] = 7
            await sent(http, path, None, method="GET")

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

    with pytest.raises(AssertionError, match=r"the emulator failed: GET .*/commands: TypeError"):
        await stumble()
