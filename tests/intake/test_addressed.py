"""Which messages are for the bot, by the table in docs/using.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.domain import Follow
from bot.intake.addressed import Facts, ignore_reason, is_help, is_stop

# By the rows of the table, the messages of which each tells, and how many people have spoken.
ROWS: dict[str, tuple[tuple[Facts, int], ...]] = {
    "in a DM with the bot alone": (
        (Facts(direct=True), 0),
        (Facts(direct=True, calls_other=True), 0),
    ),
    "that mentions the bot (in Discord also its role) or replies to one of its messages": (
        (Facts(calls_bot=True), 0),
        (Facts(calls_bot=True), 3),
        (Facts(calls_bot=True, calls_other=True), 2),
    ),
    "in a thread in which the bot has answered and one person alone has spoken": ((Facts(), 1),),
    "in a thread in which the bot has answered and several people have spoken": (
        (Facts(), 2),
        (Facts(), 9),
    ),
    "that mentions or replies to somebody else, and not the bot": (
        (Facts(calls_other=True), 0),
        (Facts(calls_other=True), 1),
    ),
    "anywhere else: in a channel, in a group DM, in another thread": ((Facts(), 0),),
    "edited: with a mention or a reply now, or in a DM": (
        (Facts(edited=True, calls_bot=True), 0),
        (Facts(edited=True, direct=True), 0),
    ),
    "edited otherwise, and not for the bot before": (
        (Facts(edited=True), 0),
        (Facts(edited=True), 1),
        (Facts(edited=True, calls_other=True), 1),
    ),
}
FOLLOW: tuple[Follow, ...] = ("auto", "all", "mention")
USING = Path(__file__).parents[2] / "docs" / "using.md"


def table() -> dict[str, list[bool]]:
    """Return what docs/using.md says of each row, with auto, all and mention."""
    _, begun = USING.read_text().split("| a message | `auto` | `all` | `mention` |\n")
    lines = begun.split("\n\n")[0].splitlines()[1:]
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {name: [{"yes": True, "no": False}[one] for one in told] for name, *told in rows}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("follow", FOLLOW)
def test_a_message_is_for_the_bot_as_the_table_says(row: str, follow: Follow) -> None:
    answered = [not ignore_reason(*message, follow) for message in ROWS[row]]

    assert set(answered) == {table()[row][FOLLOW.index(follow)]}


def test_each_row_of_the_table_is_tried() -> None:
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize("text", ["stop", "Stop.", " STOP ", "stop ."])
def test_stop_alone_is_stop(text: str) -> None:
    assert is_stop(Facts(), text)
    assert is_stop(Facts(calls_bot=True, calls_other=True), text)


def test_help_alone_is_help() -> None:
    assert all(map(is_help, ["help", "Help.", " HELP "]))
    assert not any(map(is_help, ["", "help me", "help?", "/help"]))


@pytest.mark.parametrize("text", ["", "stop it", "nonstop", "stop?", "stop..", "please stop"])
def test_other_words_are_no_stop(text: str) -> None:
    assert not is_stop(Facts(calls_bot=True), text)


def test_an_edit_is_no_stop() -> None:
    assert not is_stop(Facts(direct=True, edited=True), "stop")


def test_stop_to_somebody_else_is_nothing() -> None:
    assert not is_stop(Facts(calls_other=True), "stop")
