"""Which blocks the Slack emulator takes, and where it says that one is wrong."""

from __future__ import annotations

import json

import pytest

from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import markdown, refusal, refused, section, writer


def plain(text: str) -> Payload:
    return {"type": "plain_text", "text": text}


def actions(*elements: Payload) -> list[Payload]:
    return [{"type": "actions", "elements": list(elements)}]


def button(**fields: object) -> Payload:
    return {"type": "button", "text": plain("Stop"), **fields}


@pytest.mark.parametrize(
    ("blocks", "where"),
    [
        (section("x") * 51, "/blocks"),
        ([{"type": "bold"}], "/blocks/0/type"),
        ([{"text": "x"}], "/blocks/0"),
        ([{"type": "divider", "text": "x"}], "/blocks/0"),
        ([{**block, "block_id": "a"} for block in section("x") * 2], "/blocks/1"),
        ([{"type": "divider", "block_id": "x" * 256}], "/blocks/0/block_id"),
        (markdown(""), "/blocks/0/text"),
        (markdown("x" * 12_001), "/blocks/0/text"),
        (markdown("x" * 6001) + markdown("x" * 6000), "/blocks"),
        (section(""), "/blocks/0/text/text"),
        (section("x" * 3001), "/blocks/0/text/text"),
        ([{"type": "section"}], "/blocks/0"),
        ([{"type": "section", "text": "x"}], "/blocks/0/text"),
        (
            [{"type": "section", "text": {"type": "mrkdwn", "text": "x", "emoji": True}}],
            "/blocks/0/text",
        ),
        ([{"type": "header", "text": plain("x" * 151)}], "/blocks/0/text/text"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "/blocks/0/text/type"),
        ([{"type": "context", "elements": [plain("x")] * 11}], "/blocks/0/elements"),
        ([{"type": "context", "elements": [button()]}], "/blocks/0/elements/0/type"),
        (actions(), "/blocks/0/elements"),
        (actions(*[button()] * 26), "/blocks/0/elements"),
        (actions({"type": "lever"}), "/blocks/0/elements/0/type"),
        (actions({"type": "button"}), "/blocks/0/elements/0"),
        (actions({**button(), "text": plain("x" * 76)}), "/blocks/0/elements/0/text/text"),
        (actions(button(value="x" * 2001)), "/blocks/0/elements/0/value"),
        (actions(button(action_id="x" * 256)), "/blocks/0/elements/0/action_id"),
        (actions(button(style="pink")), "/blocks/0/elements/0/style"),
        (actions(button(action_id="a"), button(action_id="a")), "/blocks/0"),
    ],
)
async def test_a_block_that_slack_would_not_take_is_refused_by_its_place(
    blocks: list[Payload], where: str
) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "blocks": blocks}

        answer = await refused(client, "chat.postMessage", args)

        assert answer["error"] == "invalid_blocks"
        assert answer["errors"][0].endswith(f"[json-pointer:{where}]")
        assert answer["response_metadata"]["messages"] == [f"[ERROR] {answer['errors'][0]}"]
        assert slack.screen(slack.channel_id) == []


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        ([*(section("x" * 2600) * 5), *section("x")], "msg_blocks_too_long"),
        ("{}", "invalid_blocks_format"),
        ("[", "invalid_blocks_format"),
        (["x"], "invalid_blocks_format"),
    ],
)
async def test_blocks_may_be_refused_as_a_whole(blocks: object, error: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "blocks": blocks}

        assert await refusal(client, "chat.postMessage", args) == error


@pytest.mark.parametrize(
    "blocks",
    [
        markdown("x" * 12_000),
        section("x") * 50,
        json.dumps(section("x")),
        section("x" * 3000),
        actions(button(action_id="a"), button(action_id="b", style="danger", value="1")),
        actions(button(), button()),
        [{"type": "header", "text": {**plain("x" * 150), "emoji": True}}, {"type": "divider"}],
        [{"type": "context", "elements": [plain("x"), {"type": "mrkdwn", "text": "*x*"}]}],
        section("x" * 2600) * 5,
    ],
)
async def test_blocks_at_the_limit_are_taken(blocks: object) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "blocks": blocks}

        await client.api_call("chat.postMessage", json=args)

        assert len(slack.screen(slack.channel_id)) == 1


async def test_what_has_no_id_gets_one() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "blocks": actions(button(), button())}

        posted = await client.api_call("chat.postMessage", json=args)

        [block] = posted["message"]["blocks"]
        ids = [element["action_id"] for element in block["elements"]]
        assert block["block_id"]
        assert len(set(ids)) == 2
        assert slack.screen(slack.channel_id)[0].buttons == tuple(ids)
