"""The emulated Discord's commands, and how long and how often they are answered."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulators.discord import DiscordEmulator
from tests.support.discord_http import http_of, sent, slashed


def option(name: str, kind: int, **more: object) -> dict[str, Any]:
    return {"name": name, "type": kind, "description": "One", **more}


PUT = option("put", 1, options=[option("thing", 3, required=True), option("loud", 5)])
BOX: dict[str, object] = {"name": "box", "description": "A box", "options": [PUT]}
BOX |= {"integration_types": [0, 1], "contexts": [0, 1, 2]}


async def test_an_interaction_is_answered_in_time_and_its_token_dies() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        callback, hook = await slashed(emulator, http)
        early = await sent(http, f"{hook}/messages/@original", {"content": "x"}, method="PATCH")
        emulator.clock.advance(3.1)
        late = await sent(http, callback, {"type": 5})

        callback, hook = await slashed(emulator, http)
        original = f"{hook}/messages/@original"
        await sent(http, callback, {"type": 5})
        emulator.clock.advance(899)
        in_time = await sent(http, original, {"content": "one"}, method="PATCH")
        emulator.clock.advance(1)
        dead = await sent(http, original, {"content": "two"}, method="PATCH")

    assert [early[1]["code"], late[1]["code"]] == [10015, 10062]
    assert (in_time[0], dead[0], dead[1]["code"]) == (200, 401, 50027)
    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]


async def test_an_ephemeral_answer_is_nothing_for_the_channel() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        callback, hook = await slashed(emulator, http)
        psst = {"content": "psst", "flags": 64}
        await sent(http, callback, {"type": 4, "data": psst})
        _, again = await sent(http, hook, psst)
        messages = f"channels/{emulator.channel_id}/messages"
        found = await sent(http, f"{messages}/{again['id']}", None, method="GET")
        listed = await sent(http, messages, None, method="GET")

    assert [one.ephemeral for one in emulator.screen(emulator.channel_id)] == [True, True]
    assert (found[0], found[1]["code"], listed) == (404, 10008, (200, []))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("box", {}),
        ("box take", {}),
        ("box put", {}),
        ("box put", {"thing": "ball", "loud": "yes"}),
        ("box put", {"thing": "ball", "big": "yes"}),
    ],
)
async def test_a_command_is_used_only_as_it_is_defined(name: str, options: dict[str, str]) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"applications/{emulator.application_id}/commands"
        await sent(http, path, [BOX], method="PUT")

        with pytest.raises(AssertionError):
            await emulator.slash(emulator.channel_id, emulator.user("ann"), name, **options)


@pytest.mark.parametrize("kind", [0, 1, 3])
async def test_a_person_takes_a_bot_where_it_is_no_member(kind: int) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"applications/{emulator.application_id}/commands"
        await sent(http, path, [BOX], method="PUT")
        people = [emulator.user("ann"), emulator.user("ben")]
        place = emulator.elsewhere(kind, *people[: 2 if kind else 0])  # type: ignore[arg-type]
        used = await emulator.slash(place, people[0], "box put", thing="ball")
        token = emulator.token_of(used)
        await sent(http, f"interactions/{used}/{token}/callback", {"type": 5})
        refused = await sent(http, f"channels/{place}/messages", {"content": "hello"})
        statuses = []
        for number in range(7):
            emulator.clock.advance(5)
            hook = f"webhooks/{emulator.application_id}/{token}"
            statuses.append((await sent(http, hook, {"content": str(number)}))[0])

    assert (refused[0], refused[1]["code"]) == (403, 50001)
    # The first follow-up takes the place of "thinking".
    assert statuses == [200] * 6 + [400]
