"""No text pings, hides or drives a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.text.sanitize import escape_markup, one_line, strip_controls, unescape, whole_characters

# Any text, with what matters here far more often than chance would bring it.
TRICKY = st.lists(
    st.one_of(
        st.text(max_size=4),
        st.sampled_from(
            ["&", "<", ">", "&amp;", "&lt;", "&amp;lt;", "<!channel>", "<@U1>", "\x1b", "\x9b"]
        ),
        st.sampled_from(["\r\n", "\r", "\n", "\t", "\u202e", "\u2066", "\u2069", "[31m", "\x07"]),
    )
).map("".join)


@given(TRICKY)
def test_escaped_text_holds_no_markup(text: str) -> None:
    escaped = escape_markup(text)

    assert "<" not in escaped
    assert ">" not in escaped


@given(TRICKY)
def test_unescape_takes_back_exactly_what_escape_markup_wrote(text: str) -> None:
    escaped = escape_markup(text)

    assert unescape(escaped) == text
    assert unescape(escape_markup(escaped)) == escaped


@given(TRICKY)
def test_stripped_text_holds_no_control_and_no_direction_override(text: str) -> None:
    left = strip_controls(text)

    assert all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in left)
    overrides = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not overrides & {unicodedata.bidirectional(c) for c in left}


@given(st.text(st.characters(exclude_categories=["Cc", "Cf"])))
def test_ordinary_text_is_not_touched(text: str) -> None:
    assert strip_controls(text) == text


@given(TRICKY, TRICKY)
def test_deltas_may_be_stripped_one_by_one(first: str, second: str) -> None:
    assert strip_controls(first) + strip_controls(second) == strip_controls(first + second)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\r\nb\tc\n", "a\nb\tc\n"),
        ("safe\rrm", "saferm"),
        ("\x1b[2Jgone\x1b]0;title\x07", "[2Jgone]0;title"),
        ("\x9b31mred", "31mred"),
        ("user\u202egpj.exe", "usergpj.exe"),
        # The space of no width, where Khmer and Thai break their lines, hides nothing.
        ("\u1780\u200b\u1781", "\u1780\u200b\u1781"),
        # Marks that Hebrew and Arabic need, and the joiner of emoji, are no overrides.
        ("\u200f\u05e9\u200f 👩\u200d🚀", "\u200f\u05e9\u200f 👩\u200d🚀"),
    ],
)
def test_strip_controls_keeps_what_is_text(text: str, left: str) -> None:
    assert strip_controls(text) == left


@given(TRICKY)
def test_one_line_is_one_line_without_controls(text: str) -> None:
    line = one_line(text)

    assert len(line.splitlines()) <= 1
    assert "\t" not in line
    assert line == strip_controls(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines", "two lines"),
        ("two\r\n\r\n  lines", "two   lines"),
        ("a\tb\u2028c\u2029d\x85e\x0bf\x1cg", "a b c d e f g"),
        ("ends\n", "ends"),
        ("\x1b[31mred\u202e", "[31mred"),
        ("two  spaces", "two  spaces"),
    ],
)
def test_a_break_between_lines_becomes_a_space(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text())
def test_halves_of_a_character_are_joined_wherever_it_was_cut(text: str) -> None:
    encoded = text.encode("utf-16-le")
    halves = [encoded[at : at + 2] for at in range(0, len(encoded), 2)]

    joined = whole_characters("".join(it.decode("utf-16-le", "surrogatepass") for it in halves))

    assert joined == text


def test_half_a_character_alone_is_replaced() -> None:
    assert whole_characters("a\ud83d b\ude00") == "a\ufffd b\ufffd"
