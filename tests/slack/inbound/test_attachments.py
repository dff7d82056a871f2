"""Forwarded messages, pasted tables, /me, Slack's own notices, and the names of channels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.slack.inbound.attachments import attached_text
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.fakes import FakeIntake
from tests.support.slack_platform import dm_event, hearing, joined, send, serving
from tests.support.waiting import until

Payload = dict[str, object]


def rich(*elements: Payload, kind: str = "rich_text_section") -> Payload:
    return {"type": "rich_text", "elements": [{"type": kind, "elements": list(elements)}]}


def text(words: str) -> Payload:
    return {"type": "text", "text": words}


def shared(**fields: object) -> Payload:
    """A forwarded message, as Slack attaches it."""
    return {
        "is_share": True,
        "is_msg_unfurl": True,
        "author_id": "U0BOB",
        "author_name": "Bob",
        "channel_id": "C0ELSEWHERE",
        "fallback": "[November 22nd, 2026 1:00 PM] bob: The build is red.",
        "from_url": "https://parley.slack.com/archives/C0ELSEWHERE/p1700000000000100",
        "ts": "1700000000.000100",
        **fields,
    }


TABLE: Payload = {
    "type": "table",
    "rows": [
        [{"type": "raw_text", "text": "Name"}, {"type": "raw_text", "text": "Sum & more"}],
        [rich(text("Ann"), {"type": "user", "user_id": "U1"}), {"type": "raw_number", "text": "3"}],
        [{"type": "raw_text", "text": ""}, {"type": "raw_text", "text": "two\nlines"}],
    ],
}
ROWS = "Name | Sum & more\nAnn@U1 | 3\n | two lines"


@pytest.mark.parametrize(
    ("extra", "read"),
    [
        (
            {"attachments": [shared(text="The build is &lt;red&gt;.")]},
            "[forwarded from Bob] The build is <red>.",
        ),
        (
            {"attachments": [shared(text="One."), shared(text="Two.", author_name="Cy\n]")]},
            "[forwarded from Bob] One.\n[forwarded from Cy ]] Two.",
        ),
        (
            {
                "attachments": [
                    shared(message_blocks=[{"message": {"blocks": [rich(text("Red."))]}}])
                ]
            },
            "[forwarded from Bob] Red.",
        ),
        (
            {"attachments": [shared()]},
            "[forwarded from Bob] [November 22nd, 2026 1:00 PM] bob: The build is red.",
        ),
        (
            {"attachments": [shared(text="See.", files=[{"name": "log.txt"}], author_name="")]},
            "[forwarded from @U0BOB] See.\n[file: log.txt]",
        ),
        (
            {
                "attachments": [
                    shared(text="Sums:", message_blocks=[{"message": {"blocks": [TABLE]}}])
                ]
            },
            f"[forwarded from Bob] Sums:\n{ROWS}",
        ),
        ({"attachments": [{"blocks": [TABLE]}]}, ROWS),
        (
            {"attachments": [{"blocks": [TABLE, {"type": "divider"}]}], "text": "Sum?"},
            f"Sum?\n{ROWS}",
        ),
        ({"blocks": [rich(text("Sum?")), TABLE], "text": "Sum?"}, f"Sum?\n{ROWS}"),
    ],
    ids=str,
)
async def test_what_is_forwarded_or_pasted_is_part_of_the_question(
    extra: Payload, read: str
) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            await send(slack, url, {**dm_event(slack), "text": "", **extra})

        assert intake.texts == [read]


@pytest.mark.parametrize(
    "preview",
    [
        {"from_url": "https://a.example", "title": "A page", "text": "Words of a page"},
        {"from_url": "https://a.example", "blocks": [TABLE]},
        {**shared(text="Words of somebody"), "is_share": False},
        {"text": "Words of an app", "fallback": "Words of an app"},
    ],
    ids=str,
)
async def test_a_preview_is_nobodys_question(preview: Payload) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            await send(slack, url, {**dm_event(slack), "attachments": [preview]})

        assert intake.texts == ["why?"]


def test_rich_text_is_read_with_its_lists_links_and_names() -> None:
    blocks = [
        rich(text("See "), {"type": "link", "url": "https://a.example/?x&y", "text": "this"}),
        {
            "type": "rich_text",
            "elements": [
                {"type": "rich_text_list", "elements": [{"elements": [text("one")]}]},
                {"type": "rich_text_preformatted", "elements": [text("<!channel>")]},
                {"type": "rich_text_quote", "elements": [{"type": "emoji", "name": "wave"}]},
                {
                    "type": "rich_text_section",
                    "elements": [
                        {"type": "channel", "channel_id": "C1"},
                        {"type": "broadcast", "range": "here"},
                        {"type": "usergroup", "usergroup_id": "S1"},
                        {"type": "user", "user_id": "U1>"},
                    ],
                },
            ],
        },
    ]
    message = {"attachments": [shared(message_blocks=[{"message": {"blocks": blocks}}])]}

    read = attached_text(message)

    assert read == (
        "[forwarded from Bob] See this (https://a.example/?x&amp;y)\n"
        "one\n&lt;!channel&gt;\n:wave:\n<#C1><!here><!subteam^S1>"
    )


def test_attachments_are_read_up_to_a_bound() -> None:
    rows = [[{"type": "raw_text", "text": "x" * 100}] * 20] * 1000

    read = attached_text({"attachments": [{"blocks": [{"type": "table", "rows": rows}]}] * 50})

    assert 60_000 < len(read) <= 64_100


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=8),
        st.sampled_from(["table", "rich_text", "rich_text_section", "user", "text", "U1"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("attachments", "blocks", "elements", "rows", "text", "type", "is_share"),
                    *("message_blocks", "message", "files", "name", "author_name", "author_id"),
                    *("user_id", "channel_id", "url", "range", "fallback", "from_url"),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(ANYTHING, ANYTHING)
def test_no_shape_of_attachments_raises(attachments: object, blocks: object) -> None:
    message = {"attachments": [{"is_share": True, "blocks": blocks}, attachments], "blocks": blocks}

    assert isinstance(attached_text(message), str)
    assert isinstance(attached_text({"attachments": attachments, "blocks": blocks}), str)


async def test_slash_me_in_a_dm_is_a_question() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            event = {**dm_event(slack), "subtype": "me_message", "text": "wonders why"}
            await send(slack, url, event)

        assert intake.texts == ["wonders why"]


async def test_a_notice_of_slack_itself_is_no_question() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            notice = "Your app was changed by an admin."
            await send(slack, url, {**dm_event(slack), "user": "USLACK", "text": notice})

        assert not intake.asked
        assert not slack.screen(slack.dm(slack.user("Ann")))


@pytest.mark.parametrize("markup", ["<#{}>", "<#{}|>"])
async def test_a_public_channel_is_called_by_its_name(markup: str) -> None:
    intake = FakeIntake()
    scopes = {*SCOPES, "channels:read"}
    async with SlackEmulator(scopes=scopes) as slack, hearing(slack, intake):
        ann, news = slack.user("Ann"), slack.channel("news", member=False)
        secret = slack.channel("secret", private=True)

        for where in (secret, news, news):
            await slack.say(slack.dm(ann), ann, f"what is {markup.format(where)}?")
        await until(lambda: len(intake.turns) == 3)

        assert sorted(intake.texts) == sorted(
            ["what is #news?", f"what is #{secret}?", "what is #news?"]
        )
        asked = [call for call in slack.requests if call.method == "conversations.info"]
        assert len(asked) <= 3


async def test_without_the_scope_a_channel_is_called_by_its_id_and_nobody_asks_again() -> None:
    intake = FakeIntake()
    async with SlackEmulator(scopes=SCOPES - {"channels:read"}) as slack, joined(slack) as platform:
        async with serving(platform.handler(intake)) as url:
            for number in range(2):
                place = slack.channel(f"news{number}")
                ts = f"170000000{number}.000100"
                event = {**dm_event(slack), "text": f"what is <#{place}|>?", "ts": ts}
                await send(slack, url, event)

        assert all("what is #C0CHANNEL" in read for read in intake.texts)
        asked = [call for call in slack.requests if call.method == "conversations.info"]
        assert len(asked) == 1
