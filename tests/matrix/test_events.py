"""What is read in events, whatever strangers have written into them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.matrix.events import (
    Said,
    as_it_stands,
    edited_event,
    event_of,
    reacted_to,
    redacted_event,
    time_of,
    to_said,
    turn_id,
)

ROOM = "!room:example.org"
ANN = "@ann:example.org"
NAMES = st.sampled_from(
    [
        *("body", "msgtype", "m.relates_to", "m.mentions", "user_ids", "rel_type", "event_id"),
        *("url", "m.in_reply_to", "m.new_content", "info", "size", "filename", "key", "content"),
        *("sender", "type", "origin_server_ts", "unsigned", "m.relations", "m.replace", "room"),
    ]
)
TEXTS = st.sampled_from(
    ["m.text", "m.image", "m.room.message", "m.thread", "m.replace", "$a", ANN, "m.annotation"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=9)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


def message(text: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "m.room.message",
        "event_id": "$it",
        "sender": ANN,
        "origin_server_ts": 1_000_000,
        "content": {"msgtype": "m.text", "body": text, **more},
    }


def said(text: str, **more: Any) -> Said:
    found = to_said(ROOM, message(text, **more))
    assert found
    return found


@given(st.dictionaries(NAMES, ANYTHING, max_size=8), st.booleans())
def test_nothing_that_a_server_sends_raises(event: dict[str, Any], looks_right: bool) -> None:
    if looks_right:
        event = {**event, "type": "m.room.message", "sender": ANN, "event_id": "$it"}

    for found in (to_said(ROOM, event), as_it_stands(ROOM, event)):
        if found:
            found.text.encode()
            found.without("parley", "")
            assert found.command is None or found.text
    edited_event(event)
    redacted_event(event)
    reacted_to(event)
    assert 0 <= time_of(event) <= time.time()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("parley: why?", "why?"),
        ("Parley, why?", "why?"),
        ("@parley why?", "why?"),
        ("@parley:example.org: why?", "why?"),
        ("[Parley](https://matrix.to/#/@parley:example.org) why?", "why?"),
        ("[@parley:example.org](https://matrix.to/#/@parley:example.org): why?", "why?"),
        ("parleying is hard", "parleying is hard"),
        ("why, parley?", "why, parley?"),
        ("parley", ""),
        ("parley:", ""),
        ("parley \u2060", ""),
    ],
)
def test_the_name_at_the_beginning_is_no_part_of_the_question(body: str, text: str) -> None:
    assert said(body).without("@parley:example.org", "Parley", "parley") == text


def test_the_fallback_of_a_reply_is_no_part_of_the_text() -> None:
    relation = {"m.in_reply_to": {"event_id": "$other"}}

    replying = said("> <@ben:b.org> first\n> more\n\nI see", **{"m.relates_to": relation})
    quoting = said("> a quote\n\nI see")

    assert (replying.text, replying.reply_to) == ("I see", "$other")
    assert quoting.text == "> a quote\n\nI see"


def test_the_text_of_a_file_is_its_caption() -> None:
    named = {"msgtype": "m.image", "url": "mxc://a/b"}

    assert said("cat.png", **named).text == "[file: cat.png]"
    assert said("cat.png", **named, filename="cat.png").text == "[file: cat.png]"
    captioned = said("What is it?", **named, filename="cat.png")
    assert captioned.text == "What is it?\n[file: cat.png]"


def test_a_thread_is_told_from_a_reply() -> None:
    def related(**relation: object) -> tuple[str, str]:
        found = said("x", **{"m.relates_to": relation})
        return found.thread, found.reply_to

    in_thread = {"rel_type": "m.thread", "event_id": "$root", "m.in_reply_to": {"event_id": "$a"}}

    assert related(**in_thread, is_falling_back=True) == ("$root", "")
    assert related(**in_thread, is_falling_back=False) == ("$root", "$a")
    assert related(**in_thread) == ("$root", "$a")
    assert related(**{"m.in_reply_to": {"event_id": "$a"}}) == ("", "$a")


def test_an_edit_is_no_message_of_its_own_and_shows_in_the_first_one() -> None:
    relation = {"rel_type": "m.replace", "event_id": "$it"}
    edit = message(
        "* new", **{"m.relates_to": relation, "m.new_content": {"msgtype": "m.text", "body": "new"}}
    )
    of_another = {**edit, "sender": "@ben:example.org"}

    def shown(by: dict[str, Any]) -> str:
        first = {**message("old"), "unsigned": {"m.relations": {"m.replace": by}}}
        found = as_it_stands(ROOM, first)
        assert found
        return found.text

    assert to_said(ROOM, edit) is None
    assert edited_event(edit) == "$it"
    assert shown(edit) == "new"
    assert shown(of_another) == "old"


@pytest.mark.parametrize("sent", [10**13, 10**20, float("inf"), float("nan"), -1, True, "1", None])
def test_no_server_is_believed_a_time_that_cannot_be(sent: object) -> None:
    now = time.time()

    assert now <= time_of({"origin_server_ts": sent}) <= time.time()


def test_a_redacted_message_says_nothing() -> None:
    assert to_said(ROOM, {**message("x"), "content": {}}) is None


def test_a_command_begins_with_its_name() -> None:
    assert said("!parley help").command == "help"
    assert said("!Parley  model demo").command == "model demo"
    assert said("!parley").command == ""
    assert said("!parleys help").command is None
    assert said("say !parley help").command is None


def test_an_event_is_told_by_the_id_of_its_turn() -> None:
    assert event_of(turn_id("$a")) == "$a"
    assert event_of("slack:1") == ""
    assert event_of("") == ""


@pytest.mark.parametrize(
    ("top", "inner", "gone"),
    [("$a", None, "$a"), (None, "$a", "$a"), ("$a", "$a", "$a"), ("$a", "$b", ""), (7, [], "")],
)
def test_a_redaction_that_names_two_events_takes_none(
    top: object, inner: object, gone: str
) -> None:
    # Of the two, a room's version says which one a homeserver has checked.
    assert redacted_event({"redacts": top, "content": {"redacts": inner}}) == gone
