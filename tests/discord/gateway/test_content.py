"""What a message shows beside its text reaches the model, through the real discord.py."""

from __future__ import annotations

import pytest

from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import Payload
from tests.support.discord_platform import listening
from tests.support.fakes import FakeIntake
from tests.support.waiting import until

TEXT, SECTION, CONTAINER, ROW = 10, 9, 17, 1
STICKERS: Payload = {"sticker_items": [{"id": "700", "name": "Wave", "format_type": 1}]}
POLL: Payload = {
    "question": {"text": "Tea or coffee?"},
    "answers": [
        {"answer_id": 1, "poll_media": {"text": "tea"}},
        {"answer_id": 2, "poll_media": {"text": "coffee"}},
    ],
    "expiry": "2030-01-01T00:00:00+00:00",
    "allow_multiselect": False,
    "layout_type": 1,
}
EMBED: Payload = {
    "type": "rich",
    "author": {"name": "CI"},
    "title": "Build failed",
    "description": "Three tests are red",
    "fields": [{"name": "Branch", "value": "main", "inline": True}],
    "footer": {"text": "not read"},
}
COMPONENTS: list[Payload] = [
    {"type": TEXT, "id": 1, "content": "First"},
    {
        "type": CONTAINER,
        "id": 2,
        "components": [
            {
                "type": SECTION,
                "id": 3,
                "components": [{"type": TEXT, "id": 4, "content": "Second"}],
                "accessory": {"type": 2, "id": 5, "style": 1, "label": "Go", "custom_id": "go"},
            },
            {"type": 99, "id": 6},
        ],
    },
    {"type": ROW, "id": 7, "components": []},
]


async def read(change: Payload, *, snapshot: Payload | None = None) -> str:
    """Return the turn's text of a DM with this change, or of one that forwards the snapshot."""
    intake = FakeIntake()
    async with DiscordEmulator() as emulator, listening(emulator, intake):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        dm = emulator.dm(ada)
        original = await emulator.say(emulator.channel_id, bob, "said")
        sent = await emulator.forward(dm, ada, original) if snapshot else None
        sent = sent or await emulator.say(dm, ada, "look")
        event = emulator.event_of(sent)
        if snapshot:
            event |= {"message_snapshots": [{"message": blank(event) | snapshot}]}

        await emulator.tell("MESSAGE_CREATE", event | {"id": "99"} | change)
        await until(lambda: "discord:99" in [one.id for one in intake.turns])

        return next(one.text for one in intake.turns if one.id == "discord:99")


def blank(event: Payload) -> Payload:
    snapshots = event["message_snapshots"]
    assert isinstance(snapshots, list)
    return {**snapshots[0]["message"], "content": ""}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"poll": POLL}, "look\n[poll] Tea or coffee? tea / coffee"),
        ({"poll": POLL, "content": ""}, "[poll] Tea or coffee? tea / coffee"),
        (STICKERS, "look\n[sticker: Wave]"),
        ({"content": ""} | STICKERS, "[sticker: Wave]"),
        ({"embeds": [EMBED]}, "look"),
    ],
    ids=["poll", "poll alone", "sticker", "sticker alone", "preview"],
)
async def test_polls_and_stickers_are_read_and_previews_of_links_are_not(
    change: Payload, text: str
) -> None:
    assert await read(change) == text


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [
        (
            {"embeds": [EMBED]},
            "[forwarded] CI\nBuild failed\nThree tests are red\nBranch: main",
        ),
        (
            {"content": "News", "embeds": [{"type": "rich", "title": "One"}, {"type": "rich"}]},
            "[forwarded] News\nOne",
        ),
        ({"components": COMPONENTS, "flags": 1 << 15}, "[forwarded] First\nSecond"),
        (STICKERS, "[forwarded]\n[sticker: Wave]"),
    ],
    ids=["embed", "embeds", "components", "sticker"],
)
async def test_what_was_forwarded_is_read_as_it_was_shown(snapshot: Payload, text: str) -> None:
    assert await read({}, snapshot=snapshot) == text


async def test_of_a_forwarded_message_a_bounded_part_is_read() -> None:
    field = {"name": "n", "value": "v" * 1000}
    endless = {"type": "rich", "fields": [field] * 100}

    text = await read({}, snapshot={"embeds": [endless] * 5})

    assert 9_000 < len(text) < 11_000
    assert text.endswith("…")
