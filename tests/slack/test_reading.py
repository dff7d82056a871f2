"""What a person sees in a message, /me, Slack's own notices, and the names of channels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.slack.markup import readable
from adapters.slack.reading import message_text
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.fakes import FakeQueue
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
        [rich(text("Ann"), {"type": "user", "user_id": "U1"}), {"type": "raw_number", "value": 3}],
        [{"type": "raw_text", "text": ""}, {"type": "raw_text", "text": "two\nlines"}],
    ],
}
ROWS = "Name | Sum & more\nAnn@somebody | 3\n | two lines"


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
            "[forwarded from @somebody] See.\n[file: log.txt]",
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
        ({"blocks": [rich(text("Only "), text("here"))]}, "Only here"),
        ({"attachments": [{"title": "A list", "text": "Buy milk"}]}, "A list\nBuy milk"),
        ({"files": [{"id": "F1", "file_access": "check_file_info"}]}, "[file]"),
        ({"files": [{"name": "final_v7.pdf", "title": "Report Q3"}]}, "[file: Report Q3]"),
    ],
    ids=str,
)
async def test_what_is_forwarded_or_pasted_is_part_of_the_question(
    extra: Payload, read: str
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
            await send(slack, url, {**dm_event(slack), "text": "", **extra})

        assert intake.texts == [read]


@pytest.mark.parametrize(
    "preview",
    [
        {"from_url": "https://a.example", "title": "A page", "text": "Words of a page"},
        {"from_url": "https://a.example", "blocks": [TABLE]},
        {**shared(text="Words of somebody"), "is_share": False},
        {"is_app_unfurl": True, "text": "Words of an app", "fallback": "Words of an app"},
    ],
    ids=str,
)
async def test_a_preview_is_nobodys_question(preview: Payload) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
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

    read = message_text(message)

    assert read == (
        "[forwarded from Bob] See this (https://a.example/?x&amp;y)\n"
        "• one\n```\n&lt;!channel&gt;\n```\n&gt; :wave:\n<#C1><!here><!subteam^S1>[user]"
    )


def mrkdwn(words: str) -> Payload:
    return {"type": "mrkdwn", "text": words}


def plain(words: str) -> Payload:
    return {"type": "plain_text", "text": words, "emoji": True}


# As Grafana, Datadog and Alertmanager post them.
GRAFANA: Payload = {
    "color": "#D63232",
    "fallback": "[FIRING:1] High CPU (web-1)",
    "title": "[FIRING:1] High CPU (web-1)",
    "title_link": "https://grafana.example/alerting/list",
    "text": "**Firing**\n\nValue: B=97.3\nLabels:\n - instance = web-1",
    "image_url": "https://grafana.example/panel.png",
    "footer": "Grafana v11.2.0",
    "footer_icon": "https://grafana.com/static/img/fav32.png",
    "ts": 1700000000,
    "mrkdwn_in": ["pretext"],
}
GRAFANA_READ = (
    "[FIRING:1] High CPU (web-1) (https://grafana.example/alerting/list)\n"
    "**Firing**\n\nValue: B=97.3\nLabels:\n - instance = web-1\n[image]\nGrafana v11.2.0"
)
DATADOG: Payload = {
    "pretext": "<!here> *Triggered*",
    "author_name": "Datadog",
    "fallback": "Disk is full",
    "fields": [{"title": "Host", "value": "db-2", "short": True}, {"value": "prod"}],
    "actions": [{"type": "button", "name": "mute", "text": "Mute", "value": "x1"}],
}


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"attachments": [GRAFANA]}, GRAFANA_READ),
        (
            {"text": "Look:", "attachments": [DATADOG]},
            "Look:\n@here *Triggered*\nDatadog\nHost: db-2\nprod\n[button: Mute]",
        ),
        ({"attachments": [{"fallback": "Only this"}]}, "Only this"),
        (
            {"attachments": [shared(attachments=[GRAFANA, shared(text="Deep", author_name="Cy")])]},
            f"[forwarded from Bob] {GRAFANA_READ}\n[forwarded from Cy] Deep",
        ),
        (
            {"attachments": [shared(message_blocks=[{"message": {"attachments": [DATADOG]}}])]},
            "[forwarded from Bob] @here *Triggered*\nDatadog\nHost: db-2\nprod\n[button: Mute]",
        ),
        (
            {
                "attachments": [
                    {"from_url": "https://a.example", "title": "A page", "text": "Words"}
                ]
            },
            "[preview] A page\nWords",
        ),
    ],
    ids=str,
)
def test_attachments_are_read_as_people_see_them(message: Payload, read: str) -> None:
    shown = message_text(message, previews=True)

    assert readable(shown, bot="U0", names={}) == read


def test_each_kind_of_block_is_read() -> None:
    button: Payload = {"type": "button", "text": plain("Silence"), "action_id": "a", "value": "v"}
    image: Payload = {"type": "image", "image_url": "https://a.example/x", "alt_text": "CPU graph"}
    blocks: list[object] = [
        {"type": "header", "text": plain("Alert & more")},
        {
            "type": "section",
            "text": mrkdwn("*CPU* of <https://a.example|web-1>"),
            "fields": [mrkdwn("*Since*\n9:00"), plain("prod")],
            "accessory": image,
        },
        {"type": "divider"},
        {"type": "context", "elements": [image, mrkdwn("by <@U1>")]},
        {"type": "actions", "elements": [button, {"type": "overflow", "action_id": "o"}]},
        {"type": "input", "label": plain("Why?"), "element": {"type": "plain_text_input"}},
        {"type": "video", "title": plain("A talk"), "alt_text": "A talk"},
        {"type": "file", "external_id": "X1", "source": "remote"},
        {"type": "call", "call": {"v1": {"name": "Standup", "app_id": "A1"}}},
        {"type": "markdown", "text": "**Done** &lt;here>"},
        {
            "type": "card",
            "title": plain("Ticket 7"),
            "subtitle": plain("open"),
            "actions": [button],
        },
        {"type": "list"},
        {
            "type": "data_table",
            "caption": "Sums",
            "rows": [
                [{"type": "raw_text", "text": "Item"}, {"type": "raw_text", "text": "Price"}],
                [{"type": "raw_date", "value": "2026-11-25"}, {"type": "raw_currency", "value": 7}],
                [{"type": "raw_percent", "text": "5 %"}, {"type": "raw_boolean", "value": True}],
            ],
        },
        {"type": "rich_text", "elements": [ordered(text("one"), text("two"))]},
        {"type": "rich_text", "elements": [{"type": "lightbulb"}]},
    ]

    read = message_text({"blocks": blocks, "bot_id": "B1", "text": "The notification"})

    assert readable(read, bot="U0", names={"U1": "Ann"}).split("\n") == [
        "Alert & more",
        *("*CPU* of web-1 (https://a.example)", "*Since*", "9:00", "prod", "[image: CPU graph]"),
        *("[image: CPU graph]", "by @Ann"),
        *("[button: Silence]", "[overflow]"),
        *("Why?", "[plain text input]"),
        *("[video: A talk]", "[file]", "[call: Standup]", "**Done** <here>"),
        *("Ticket 7", "open", "[button: Silence]", "[list]"),
        *("Sums", "Item | Price", "2026-11-25 | 7", "5 % | True"),
        *("1. one", "2. two", "[lightbulb]"),
    ]


def ordered(*items: Payload, **more: object) -> Payload:
    inner: list[object] = [{"type": "rich_text_section", "elements": [one]} for one in items]
    return {"type": "rich_text_list", "style": "ordered", "elements": inner, **more}


def test_a_list_goes_on_after_a_list_in_it() -> None:
    lists = [
        ordered(text("one"), text("two"), offset="5"),
        ordered(text("inner"), indent=1),
        ordered(text("three"), offset=2),
    ]

    read = message_text({"blocks": [{"type": "rich_text", "elements": lists}]})

    assert read == "1. one\n2. two\n  1. inner\n3. three"


@pytest.mark.parametrize(
    ("kind", "chosen", "read"),
    [
        ("checkboxes", "initial_options", "[checkboxes: Pizza, 3 votes | Rice]"),
        ("static_select", "initial_option", "[static select: Rice]"),
        ("overflow", "", "[overflow]"),
    ],
)
def test_options_that_can_be_seen_are_read(kind: str, chosen: str, read: str) -> None:
    options: list[Payload] = [
        {"text": plain(one), "value": "v"} for one in ("Pizza, 3 votes", "Rice")
    ]
    picked = options[1] if chosen == "initial_option" else options[1:]
    element: Payload = {"type": kind, "action_id": "a", "options": options}
    if chosen:
        element[chosen] = picked

    assert message_text({"blocks": [{"type": "actions", "elements": [element]}]}) == read


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("CPU high on <https://a.example|web-1>!", "CPU high on <https://a.example|web-1>!"),
        ("web-1: CPU high", "*CPU high* on web-1"),
        ("", "*CPU high* on web-1"),
        ("Please look", "Please look\n*CPU high* on web-1"),
    ],
)
def test_a_text_that_repeats_the_blocks_is_read_once(said: str, read: str) -> None:
    block: Payload = {"type": "section", "text": mrkdwn("*CPU high* on web-1")}

    assert message_text({"text": said, "blocks": [block]}) == read


def test_the_text_of_a_notification_is_not_read() -> None:
    blocks = [{"type": "section", "text": mrkdwn(one)} for one in ("CPU", "OK", "5%", "OK")]
    message = {"text": "Alert: CPU OK at 95%, not 5%", "blocks": blocks, "bot_id": "B1"}

    assert message_text(message) == "CPU\nOK\n5%\nOK"


def test_a_block_that_repeats_another_is_read() -> None:
    blocks = [rich(text(one)) for one in ("Status", "OK", "Other", "OK")]

    assert message_text({"blocks": blocks}) == "Status\nOK\nOther\nOK"


def test_a_message_is_read_up_to_a_bound() -> None:
    rows = [[{"type": "raw_text", "text": "x" * 100}] * 20] * 50

    read = message_text({"attachments": [{"blocks": [{"type": "table", "rows": rows}]}] * 5})

    assert 60_000 < len(read) <= 64_100


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=8),
        st.sampled_from(
            [
                *("table", "rich_text", "rich_text_section", "rich_text_list", "user", "text"),
                *("U1", "rich_text_quote", "section", "image", "button", "ordered", "mrkdwn"),
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("attachments", "blocks", "elements", "rows", "text", "type", "is_share"),
                    *("message_blocks", "message", "files", "name", "author_name", "author_id"),
                    *("user_id", "channel_id", "url", "range", "fallback", "from_url"),
                    *("fields", "title", "value", "actions", "accessory", "offset", "indent"),
                    *("style", "bot_id", "alt_text", "title_link", "mode", "caption"),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(ANYTHING, ANYTHING)
def test_no_shape_of_a_message_raises(attachments: object, blocks: object) -> None:
    message = {
        "attachments": [{"is_share": True, "blocks": blocks, "text": blocks}, attachments],
        "blocks": blocks,
        "text": attachments,
        "files": [attachments, blocks],
    }

    assert isinstance(message_text(message, previews=True), str)
    assert isinstance(message_text({"attachments": attachments, "blocks": [blocks]}), str)


async def test_slash_me_in_a_dm_is_a_question() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
            event = {**dm_event(slack), "subtype": "me_message", "text": "wonders why"}
            await send(slack, url, event)

        assert intake.texts == ["wonders why"]


@pytest.mark.parametrize("markup", ["<#{}>", "<#{}|>"])
async def test_a_public_channel_is_called_by_its_name(markup: str) -> None:
    intake = FakeQueue()
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
    intake = FakeQueue()
    async with SlackEmulator(scopes=SCOPES - {"channels:read"}) as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
            for number in range(2):
                place = slack.channel(f"news{number}")
                ts = f"170000000{number}.000100"
                event = {**dm_event(slack), "text": f"what is <#{place}|>?", "ts": ts}
                await send(slack, url, event)

        assert all("what is #C0CHANNEL" in read for read in intake.texts)
        asked = [call for call in slack.requests if call.method == "conversations.info"]
        assert len(asked) == 1
