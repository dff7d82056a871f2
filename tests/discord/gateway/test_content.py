"""What a message shows beside its text reaches the model, through the real discord.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.discord.gateway.content import shown_beside_text
from tests.emulators.discord.objects import Payload
from tests.support.discord_platform import heard
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
    "footer": {"text": "at noon"},
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
    async with heard() as (emulator, intake, ada):
        bob = emulator.user("Bob")
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


GALLERY: Payload = {
    "type": 12,
    "items": [
        {"media": {"url": "https://a/b.png", "content_type": "image/png"}, "description": "a cat"},
        {"media": {"url": "https://a/b.mp4", "content_type": "video/mp4"}},
    ],
}
PREVIEW: Payload = {
    "type": "article",
    "url": "https://example.com/",
    "title": "Example",
    "description": "d" * 1000,
    "footer": {"text": "never read"},
}


async def test_what_stands_beside_a_text_is_read() -> None:
    text = await read({"poll": POLL, "embeds": [PREVIEW]} | STICKERS)

    poll = "[poll] Tea or coffee? tea / coffee"
    assert text == f"look\n{poll}\n[preview: Example: {'d' * 300}…]\n[sticker: Wave]"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"embeds": [EMBED]}, "CI\nBuild failed\nThree tests are red\nBranch: main\nat noon"),
        (
            {
                "embeds": [
                    {"title": "Build", "url": "https://ci/1", "image": {}, "video": {"url": "x"}}
                ]
            },
            "Build (https://ci/1)\n[video]",
        ),
        (
            {"author": {"id": "1"}, "embeds": [EMBED]},
            "[preview: Build failed: Three tests are red]",
        ),
        ({"embeds": [{"type": "gifv", "thumbnail": {"url": "x"}}]}, "[preview: gifv]"),
        (
            {
                "author": {"id": "1"},
                "embeds": [
                    {"type": "poll_result", "fields": [{"name": "total_votes", "value": "3"}]}
                ],
            },
            "total votes: 3",
        ),
        (
            {"embeds": [{"fields": [{"name": "HTTP_PROXY", "value": "a_b"}]}]},
            "HTTP_PROXY: a_b",
        ),
        ({"components": COMPONENTS}, "First\nSecond\n[button: Go]\n[component]"),
        ({"components": [GALLERY]}, "[image: a cat]\n[video]"),
        ({"components": [{"type": 11, "media": {"url": "x"}}]}, "[image]"),
        ({"components": [{"type": 13, "file": {"url": "attachment://a.pdf"}}]}, "[file: a.pdf]"),
        ({"components": [{"type": 14, "divider": True}]}, ""),
        (
            {
                "components": [
                    {"type": 2, "label": "Docs", "url": "https://d/", "emoji": {"name": "📖"}}
                ]
            },
            "[button: 📖 Docs (https://d/)]",
        ),
        (
            {
                "components": [
                    {"type": 3, "placeholder": "Size", "options": [{"label": "S"}, {"label": "M"}]}
                ]
            },
            "[menu: Size: S / M]",
        ),
        (
            {"components": [{"type": 99, "label": "New", "components": [COMPONENTS[0]]}]},
            "[component: New]\nFirst",
        ),
        (
            {
                "poll": {
                    "question": {"text": "Tea?"},
                    "answers": [
                        {"answer_id": 1, "poll_media": {"emoji": {"id": None, "name": "👍"}}},
                        {
                            "answer_id": 2,
                            "poll_media": {"text": "no", "emoji": {"id": "7", "name": "nope"}},
                        },
                        {"answer_id": 3, "poll_media": {}},
                    ],
                    "results": {"answer_counts": [{"id": 1, "count": 4}]},
                }
            },
            "[poll] Tea? 👍 (4) / :nope: no / […]",
        ),
        (
            {
                "attachments": [
                    {"filename": "a.png", "description": "a cat"},
                    {"title": "Plän", "filename": "Pl_n"},
                    {"id": "1"},
                    {"filename": "voice-message.ogg", "waveform": "AA=="},
                ]
            },
            "[file: a.png (a cat)]\n[file: Plän]\n[file]\n[voice message: voice-message.ogg]",
        ),
        (
            {
                "message_snapshots": [
                    {
                        "message": {
                            "content": "see <@123456789012345678>",
                            "mentions": [{"id": "123456789012345678", "username": "bob"}],
                            "components": [GALLERY],
                            "message_snapshots": [{"message": {"embeds": [{"title": "Deep"}]}}],
                        }
                    }
                ]
            },
            "[forwarded] see @bob\n[image: a cat]\n[video]\n[forwarded] Deep",
        ),
        ({"message_snapshots": [{"message": {}}]}, "[forwarded]"),
    ],
)
def test_all_that_a_message_shows_is_read(message: Payload, text: str) -> None:
    assert shown_beside_text(message) == text


ODD: tuple[object, ...] = (None, 0, -1, True, "x", [], [None], {}, {"id": {}}, {"type": []}, [[]])


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_whatever_a_payload_is_it_is_read(odd: object) -> None:
    whole: Payload = {
        "embeds": [EMBED, PREVIEW],
        "components": [*COMPONENTS, GALLERY],
        "poll": POLL,
        "attachments": [{"filename": "a"}],
    }
    whole["message_snapshots"] = [{"message": {**whole}}]

    for key in whole:
        for changed in changes(whole[key], odd):
            assert isinstance(shown_beside_text({**whole, key: changed}), str)


def changes(value: object, odd: object) -> Iterator[object]:
    """Yield the value with each of its parts replaced."""
    yield odd
    if isinstance(value, dict):
        yield from ({**value, key: new} for key in value for new in changes(value[key], odd))
    if isinstance(value, list):
        for at, one in enumerate(value):
            yield from ([*value[:at], new, *value[at + 1 :]] for new in changes(one, odd))


async def test_what_was_forwarded_is_read_with_the_names_of_this_server() -> None:
    async with heard() as (emulator, intake, ada):
        ada, bob, role = ada, emulator.user("Bob"), emulator.role("helpers")
        text = f"<@{bob}> and <@&{role}> in <#{emulator.channel_id}>"
        original = await emulator.say(emulator.channel_id, bob, text)
        sent = await emulator.forward(emulator.channel_id, ada, original)
        mention = {"content": emulator.bot_mention, "mentions": [{"id": emulator.bot_id}]}

        await emulator.tell("MESSAGE_CREATE", emulator.event_of(sent) | {"id": "99"} | mention)
        await until(lambda: intake.turns)

        assert intake.texts == ["[forwarded] @Bob and @helpers in #general"]


async def test_of_a_forwarded_message_a_bounded_part_is_read() -> None:
    field = {"name": "n", "value": "v" * 1000}
    endless = {"type": "rich", "fields": [field] * 100}

    text = await read({}, snapshot={"embeds": [endless] * 5})

    assert 9_000 < len(text) < 11_000
    assert text.endswith("…")


@pytest.mark.parametrize("text", ["\u200b", "\u2060\ufeff \u3164", "\u2800"])
async def test_what_nobody_can_see_is_no_question(text: str) -> None:
    async with heard() as (emulator, intake, ada):
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        assert not intake.turns


async def test_a_name_turns_no_text_around() -> None:
    async with heard() as (emulator, intake, ada):
        ada = emulator.user("A\u202eda")

        await emulator.say(emulator.dm(ada), ada, "why?")
        await until(lambda: intake.turns)

        assert intake.turns[0].person.name == "Ada"
