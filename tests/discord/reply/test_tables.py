"""Tables in Discord: as code, in columns, and only longer by it."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.discord.reply.message import measured as written
from adapters.discord.reply.message import tables_as_code
from bot.reply.pages import Pager

PIECES = [
    "| a | b |\n",
    "|---|:-:|\n",
    "| long cell | x |\n",
    "|",
    "-",
    "\n",
    "text\n",
    "```\n",
    "漢",
    "\\(",
    "\\]",
    "$$",
    "\\",
    "a_",
    "`",
    *("🇩", "👩", "\u200d", "⌚", "\ufe0e", "\ufe0f", "\u0301", "\t"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def test_a_table_is_shown_as_code_with_even_columns() -> None:
    text = "Look:\n\n| a | b |\n|---|:-:|\n| long cell | 漢字 |\n| x |\n\nDone."

    shown = tables_as_code(text)

    assert shown == (
        "Look:\n\n"
        "```\n"
        "| a         | b    |\n"
        "|-----------|------|\n"
        "| long cell | 漢字 |\n"
        "| x         |\n"
        "```\n"
        "\nDone."
    )


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "| a | b |",
        "| a | b |\nno delimiter",
        "| a | b |\n|---|\n",
        "```\n| a |\n|---|\n| 1 |\n```",
    ],
)
def test_what_is_no_table_stays_as_it_is(text: str) -> None:
    assert tables_as_code(text) == text


@given(st.integers(3, 12))
def test_a_cell_does_not_end_the_code(backticks: int) -> None:
    shown = tables_as_code(f"| a |\n|---|\n| {'`' * backticks}x |\n\n")

    assert shown.count("```") == 2


@pytest.mark.parametrize(
    ("cell", "columns"),
    [
        ("e\u0301tude", 5),
        ("👍🏽", 2),
        ("👨\u200d👩\u200d👧", 2),
        ("❤\ufe0f", 2),
        ("🇩🇪", 2),
        ("한글", 4),
        ("\uff76\uff9e", 2),
    ],
)
def test_a_cell_takes_the_columns_that_a_reader_sees(cell: str, columns: int) -> None:
    shown = tables_as_code(f"| {cell} | b |\n|---|---|\n| 12345678 | c |\n\n")

    assert f"| {cell}{' ' * (8 - columns)} | b |" in shown


def test_a_row_of_many_flags_is_padded_in_a_moment() -> None:
    text = f"| {'🇩🇪' * 80_000} |\n|---|\n| b |\n\n"
    began = time.process_time()

    tables_as_code(text)

    # Minutes where each flag is measured with all before it.
    assert time.process_time() - began < 10


def test_a_table_that_grows_costs_little() -> None:
    rows = [f"| item {n} | value {n * 7} | a note on it |" for n in range(300)]
    text = "\n".join(["| name | value | note |", "|---|---|---|", *rows])
    pager = Pager(limit=2000, measure=lambda text: len(tables_as_code(text)))
    began = time.process_time()

    for size in range(5, len(text), 5):
        pager.tidied(pager.cut(text[:size])[-1])

    # A minute where all of it is shown anew each time.
    assert time.process_time() - began < 10


def test_code_between_rows_costs_little() -> None:
    text = "```\n\n|" * 10_000
    began = time.process_time()

    Pager(limit=2000, measure=lambda text: len(tables_as_code(text))).cut(text)

    assert time.process_time() - began < 10


@given(TEXTS)
@example("| a |\n|---|\n| b |\n| ⌚⌚⌚⌚\ufe0e |\n\n")
@example("\\(| a | b |\n```\n")
def test_a_text_that_grows_never_takes_less_room(text: str) -> None:
    lengths = [len(written(text[:size])) for size in range(len(text) + 1)]

    assert lengths == sorted(lengths)


@given(TEXTS)
def test_nor_does_one_whose_padding_is_used_up(text: str) -> None:
    shown = tables_as_code.__wrapped__

    with patch("adapters.discord.reply.message._MOST_PADDING", 12):
        lengths = [len(shown(text[:size])) for size in range(len(text) + 1)]

    assert lengths == sorted(lengths)


@pytest.mark.parametrize("row", ["||", "|b|", "| b"])
def test_short_rows_below_a_wide_head_fill_few_pages(row: str) -> None:
    text = f"|{'a' * 230}|\n|-|\n" + f"{row}\n" * 3000

    pages = Pager(limit=2000, measure=lambda text: len(tables_as_code(text))).cut(text)

    # 500 where each row took as much room as the head.
    assert len(pages) < 3 * len(text) / 2000


@given(st.lists(st.sampled_from(["| a | b |", "| a long cell | b |"]), min_size=30, max_size=80))
def test_the_pages_of_a_long_table_fit_as_they_are_shown(rows: list[str]) -> None:
    text = "\n".join(["| head | other |", "|---|---|", *rows])

    def measure(text: str) -> int:
        return len(tables_as_code(text))

    pages = Pager(limit=400, measure=measure).cut(text)

    assert all(measure(page) <= 400 for page in pages)
    assert all(tables_as_code(page).startswith("```\n| head") for page in pages)
