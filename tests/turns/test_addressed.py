"""Which messages are for the bot: one case for each row of the table in docs/using.md."""

from __future__ import annotations

import pytest

from bot.domain import Follow
from bot.turns.addressed import Facts, is_for_bot, is_stop

# What a message is, and whether it is for the bot with auto, all and mention.
ROWS: dict[str, tuple[Facts, tuple[bool, bool, bool]]] = {
    "in a DM": (Facts(direct=True), (True, True, True)),
    "in a DM, about somebody": (Facts(direct=True, calls_other=True), (True, True, True)),
    "a call in a channel": (Facts(calls_bot=True), (True, True, True)),
    "a call to the bot and to somebody": (
        Facts(calls_bot=True, calls_other=True, speakers=2),
        (True, True, True),
    ),
    "a call in a thread of several": (Facts(calls_bot=True, speakers=3), (True, True, True)),
    "in a thread of one person": (Facts(speakers=1), (True, True, False)),
    "in a thread of several": (Facts(speakers=2), (False, True, False)),
    "to somebody else": (Facts(calls_other=True, speakers=1), (False, False, False)),
    "in a channel or another thread": (Facts(), (False, False, False)),
    "edited in a thread of one person": (Facts(edited=True, speakers=1), (False, False, False)),
    "edited, with a call now": (Facts(edited=True, calls_bot=True), (True, True, True)),
    "edited in a DM": (Facts(edited=True, direct=True), (True, True, True)),
}
FOLLOW: tuple[Follow, ...] = ("auto", "all", "mention")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("follow", FOLLOW)
def test_a_message_is_for_the_bot_as_the_table_says(row: str, follow: Follow) -> None:
    facts, answered = ROWS[row]

    assert is_for_bot(facts, follow) is answered[FOLLOW.index(follow)]


@pytest.mark.parametrize("text", ["stop", "Stop.", " STOP ", "stop ."])
def test_stop_alone_is_stop(text: str) -> None:
    assert is_stop(Facts(), text)
    assert is_stop(Facts(calls_bot=True, calls_other=True), text)


@pytest.mark.parametrize("text", ["", "stop it", "nonstop", "stop?", "stop..", "please stop"])
def test_other_words_are_no_stop(text: str) -> None:
    assert not is_stop(Facts(calls_bot=True), text)


def test_stop_to_somebody_else_is_nothing() -> None:
    assert not is_stop(Facts(calls_other=True), "stop")
