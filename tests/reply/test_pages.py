"""Pages fit, stay as they are, lose nothing, and each reads well alone."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.reply.pages import SMALLEST_LIMIT, Measure, Pager
from bot.text.markdown import close
from bot.text.sanitize import escape_markup


def pages(text: str, *, limit: int, measure: Measure) -> list[str]:
    return Pager(limit=limit, measure=measure).cut(text)


def escaped_bytes(text: str) -> int:
    return len(escape_markup(text).encode())


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


MEASURES = st.sampled_from([len, escaped_bytes, utf16_units])
LIMITS = st.integers(SMALLEST_LIMIT, 150)
PLAIN = [
    *("word ", "Sentence. ", "longlonglongword", "\n", "\n\n", " ", "# Title\n", "- item\n", "ü"),
    *("&", "`code span`", "`open", "``", "[link](https://example.org/a_(b))", "[open"),
    *("**bold text**", "https://example.org/?q=1&r=<2>", "e\u0301", "👩\u200d🚀", "🇩🇪", "👍🏽"),
    *("漢字。", "\t", "x" * 60),
]
FENCES = [
    *("```python\n", "```\n", "```", "\n```\n", "~~~\n", "~~~", "   ```sh\n", "````md\n"),
    *("  ````\n", "```" + "x" * 50 + "\n", "~" * 9 + "\n", "    indented = 1\n", "code()\n", "`"),
    *("``\n", "- ```sh\n", "* ```\n", "    ```\n", "> ```py\n", "> code()\n", "> ```\n", "- "),
    "> ",
]
BLOCKS = [
    *("| a | b |\n", "|---|---|\n", "| 1 | 2 |\n", "|", "| - ", "1. first\n", "1. next\n"),
    *("2) x\n", "   1. sub\n", "   1. next sub\n", "   - sub\n", "3. third\n", "10. ```\n"),
    *("   | a | b |\n", "   |---|---|\n", "   | 1 | 2 |\n", "\\|", "   goes on\n", "> quote\n"),
    *("<@123>", "*a*", "~~b~~", "**", "_"),
]
PLAIN_TEXTS = (
    st.lists(st.sampled_from(PLAIN), max_size=60)
    .map("".join)
    .filter(lambda text: "```" not in text)
)
TEXTS = st.lists(st.sampled_from(PLAIN + FENCES), max_size=60).map("".join)
ANY = st.lists(st.sampled_from(PLAIN + FENCES + BLOCKS), max_size=60).map("".join)


def bodies(page: str, *, first: bool, last: bool) -> Iterator[str]:
    """Yield what a page may hold of the text: the page without the fence lines added to it."""
    starts = [page]
    head, newline, rest = page.partition("\n")
    if not first and newline and head.lstrip(" >")[:3] in ("```", "~~~"):
        starts += [rest, rest.removeprefix(re.split("```|~~~", head)[0])]
    for start in starts:
        yield start
        tail = start.rpartition("\n")[2]
        if not last and tail.strip(" >")[:3] in ("```", "~~~"):
            # The text may have begun the line itself.
            for added in range(1, len(tail) + 2):
                yield start[: len(start) - added]


def joins(text: str, cut: list[str], at: int = 0) -> bool:
    """Whether the pages are the text, but for one whitespace character at each cut."""
    if not cut:
        return not text[at:].strip()
    page, *others = cut
    starts = [at, at + 1] if at and text[at : at + 1].isspace() else [at]
    return any(
        text.startswith(body, start) and joins(text, others, start + len(body))
        for body in bodies(page, first=not at, last=not others)
        for start in starts
    )


@given(ANY, LIMITS, MEASURES)
@example("text\n   ```\n" + "code\n" * 12 + "```" + "y" * 60, 80, len)
def test_a_page_that_another_follows_never_changes(
    text: str, limit: int, measure: Callable[[str], int]
) -> None:
    grown = pages(text, limit=limit, measure=measure)

    for size in range(len(text)):
        settled = pages(text[:size], limit=limit, measure=measure)[:-1]
        assert settled == grown[: len(settled)]


@given(ANY, LIMITS, MEASURES)
def test_pages_fit_and_the_last_one_fits_closed_too(
    text: str, limit: int, measure: Callable[[str], int]
) -> None:
    cut = pages(text, limit=limit, measure=measure)

    assert all(measure(page) <= limit for page in cut)
    assert not cut or measure(close(cut[-1])) <= limit


@given(PLAIN_TEXTS, LIMITS)
def test_pages_without_fences_joined_are_the_text_but_for_whitespace_at_cuts(
    text: str, limit: int
) -> None:
    cut = pages(text, limit=limit, measure=len)

    at = 0
    for page in cut:
        # More than one character is missing only where a whole page was blank.
        skipped = len(text[at:]) - len(text[at:].lstrip())
        assert any(text.startswith(page, at + n) for n in (0, 1) if n <= skipped) or skipped > 1
        at = text.index(page, at) + len(page)
    assert not text[at:].strip()


@given(TEXTS, LIMITS)
@example("word " * 10 + "\n`````python\n```\nword word ", 80)
def test_pages_without_the_added_fence_lines_are_the_text(text: str, limit: int) -> None:
    cut = pages(text, limit=limit, measure=len)

    assert joins(text, cut)


@given(TEXTS, LIMITS)
def test_no_page_is_blank_and_all_but_the_last_close_their_fences(text: str, limit: int) -> None:
    cut = pages(text, limit=limit, measure=len)

    assert all(page.strip() for page in cut)
    assert all(close(page) == page for page in cut[:-1])


@given(ANY, LIMITS, MEASURES, st.lists(st.integers(1, 40), min_size=1))
def test_a_pager_that_saw_a_text_grow_cuts_as_a_new_one(
    text: str, limit: int, measure: Measure, steps: list[int]
) -> None:
    pager = Pager(limit=limit, measure=measure)

    at = 0
    for step in itertools.cycle(steps):
        at += step
        assert pager.cut(text[:at]) == pages(text[:at], limit=limit, measure=measure)
        if at >= len(text):
            break


# Closing the code makes the page too large.
@example("word word word `open" + "x" * 60, 80, len)
@given(ANY, LIMITS, MEASURES)
def test_what_is_shown_meanwhile_fits(text: str, limit: int, measure: Measure) -> None:
    pager = Pager(limit=limit, measure=measure)

    assert all(measure(pager.tidied(page)) <= limit for page in pager.cut(text))


@given(ANY, st.integers(200, 300), st.integers(0, 8))
def test_each_row_of_a_table_that_is_cut_stands_below_its_head(
    text: str, limit: int, indent: int
) -> None:
    before = " " * indent
    head = f"{before}| a | b |\n{before}|---|---|\n"
    rows = [f"{before}| {number} | {text[:9]!r} |" for number in range(40)]

    cut = pages(head + "\n".join(rows), limit=limit, measure=len)

    assert all(page.startswith(head) for page in cut)
    assert "\n".join(page.removeprefix(head) for page in cut) == "\n".join(rows)


def test_a_row_that_is_cut_goes_on_in_its_column_below_the_head() -> None:
    head = "| a | b |\n|---|---|\n"

    cut = pages(f"{head}| 1 | {'words ' * 30}|\n| 3 | 4 |", limit=100, measure=len)

    assert all(page.startswith(f"{head}| | words") for page in cut[1:])
    assert cut[-1].endswith(" |\n| 3 | 4 |")


def test_a_head_that_would_fill_a_page_is_not_repeated() -> None:
    text = f"| {'long head ' * 4}| b |\n|---|---|\n" + "| 1 | 2 |\n" * 30

    cut = pages(text, limit=160, measure=len)

    assert not any("long" in page for page in cut[1:])


@given(TEXTS)
def test_a_text_that_needs_no_cut_is_one_page_as_it_is(text: str) -> None:
    cut = pages(text, limit=10_000, measure=len)

    assert cut == ([text] if text.strip() else [])


@pytest.mark.parametrize(
    "cluster",
    [
        *("👨\u200d👩\u200d👧", "🇩🇪", "👍🏽", "e\u0301\u0323", "❤\ufe0f", "\u1112\u1161\u11ab"),
        # An Indic conjunct, a vowel that stands behind its consonant, half-width kana.
        *("\u0915\u094d\u0937", "\u0e01\u0e33", "\uff76\uff9e"),
        # A sentence's end with a variation selector.
        "\u3002\ufe00",
    ],
)
@pytest.mark.parametrize("limit", range(80, 87))
@pytest.mark.parametrize("before", ["", "https://example.org/"])
def test_no_character_is_torn(cluster: str, limit: int, before: str) -> None:
    cut = pages(before + cluster * 60, limit=limit, measure=len)

    bodies = [page.removeprefix(before) for page in cut]
    assert all(body == cluster * (len(body) // len(cluster)) for body in bodies)
    assert "".join(cut) == before + cluster * 60


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a" * 60 + "\n\n" + "b" * 15 + "\n" + "c" * 50, "a" * 60 + "\n", "b" * 15 + "\n"),
        ("a" * 45 + "\n" + "b. b b b " * 9, "a" * 45, "b. b b"),
        ("a" * 45 + ". " + "b " * 30, "a" * 45 + ".", "b b b"),
        ("a" * 45 + " " + "b" * 50, "a" * 45, "b" * 50),
        ("a" * 100, "a" * 80, "a" * 20),
        ("漢" * 40 + "。" + "字" * 60, "漢" * 40 + "。", "字字"),
        ("a " * 30 + "`code that is very long` b", ("a " * 30)[:-1], "`code that is very long` b"),
        ("a " * 30 + "[a link](https://example.org) b", ("a " * 30)[:-1], "[a link](https"),
        ("some words\n" + "https://example.org/" + "p" * 59, "some words", "https://"),
        ("a " * 29 + "[x y](https://a.b/c_(d_e)/f) b", ("a " * 29)[:-1], "[x y](https"),
        ("a " * 28 + "[x](https://a.b/c_(d_e f)g h) b", ("a " * 28)[:-1], "[x](https://a.b/c_(d"),
        ("a " * 30 + "[a [b c] d](https://a.b) b", ("a " * 30)[:-1], "[a [b c] d]("),
        ("a " * 32 + "[one two][three four] b", ("a " * 32)[:-1], "[one two][three"),
        ("a " * 32 + "b[one two][three] b", ("a " * 32)[:-1], "b[one two][three]"),
        # A mark that was never closed is no reason for a short page, or to tear words.
        ("a " * 10 + "`" + "words " * 20, "a " * 10 + "`" + ("words " * 9)[:-1], "words "),
        (
            "a " * 10 + "[0, 1) " + "words " * 20,
            "a " * 10 + "[0, 1) " + ("words " * 8)[:-1],
            "words ",
        ),
        ("[" + "words " * 20, "[" + ("words " * 13)[:-1], "words "),
        ("a " * 30 + "**bold and more bold** b", ("a " * 30)[:-1], "**bold and"),
        ("a" * 55 + "\n\n## Title\n\n" + "b" * 60, "a" * 55 + "\n", "## Title\n\nb"),
        (
            "a" * 20 + "\n```py\n" + "b" * 80,
            "a" * 20 + "\n```py\n" + "b" * 49 + "\n```",
            "```py\nb",
        ),
        ("a" * 60 + "\n```py\n" + "code\n" * 3 + "```", "a" * 60, "```py\ncode\n"),
    ],
)
def test_pages_are_cut_at_the_best_place(text: str, first: str, second: str) -> None:
    cut = pages(text, limit=80, measure=len)

    assert cut[0] == first
    assert cut[1].startswith(second)


def test_a_fence_that_is_cut_is_closed_and_opened_again_with_its_language() -> None:
    text = "Look:\n  ```python title=x\n" + "line = 1\n" * 13 + "  ```\nDone."

    cut = pages(text, limit=80, measure=len)

    assert cut == [
        "Look:\n  ```python title=x\n" + "line = 1\n" * 5 + "  ```",
        "  ```python\n" + "line = 1\n" * 7 + "  ```",
        "  ```python\nline = 1\n  ```\nDone.",
    ]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Return prose and fenced code in items and quotes; each line tells which of both it is."""
    blocks = []
    for _ in range(draw(st.integers(1, 6))):
        before = draw(
            st.sampled_from(["", "  ", "    ", "- ", "1. ", "   - ", "> ", "> - ", "- > "])
        )
        within = re.sub("[^ >]", " ", before)
        code = [
            f"{within}code {word}" for word in draw(st.lists(st.sampled_from(LENGTHS), max_size=9))
        ]
        # A quote ends its fence, too.
        end = [] if ">" in before and draw(st.booleans()) else [f"{within}```"]
        prose = [f"prose {word}" for word in draw(st.lists(st.sampled_from(LENGTHS), max_size=4))]
        blocks.append("\n".join([f"{before}```py", *code, *end, "", *prose, ""]))
    return "\n".join(blocks)


LENGTHS = ["word", "words " * 5, "words " * 40]


@given(documents(), LIMITS, MEASURES)
def test_code_is_code_on_every_page_and_prose_is_prose(
    text: str, limit: int, measure: Measure
) -> None:
    cut = pages(text, limit=limit, measure=measure)

    for page in cut:
        fence = ""
        for line in page.split("\n"):
            if ">" in fence and ">" not in line:
                fence = ""
            if "```" in line:
                fence = "" if fence else line
            else:
                assert "code" not in line or fence
                assert "prose" not in line or not fence
        assert not fence or page == cut[-1]


@pytest.mark.parametrize(
    ("before", "again"),
    [("- ", "  "), ("10. ", "    "), ("> ", "> "), ("- > ", "  > "), ("        ", "        ")],
)
def test_a_fence_in_an_item_or_quote_is_opened_again_where_its_code_stands(
    before: str, again: str
) -> None:
    text = f"{before}```sh\n" + f"{again}ls\n" * 31 + f"{again}```\nDone."

    cut = pages(text, limit=80, measure=len)

    assert cut[0].endswith(f"\n{again}ls\n{again}```")
    assert cut[1].startswith(f"{again}```sh\n{again}ls\n")
    assert cut[-1].endswith(f"\n{again}```\nDone.")


def test_what_stands_behind_a_quote_or_a_table_begins_a_page_as_it_is() -> None:
    for size in range(40, 81):
        for head, row in (("> ```py\n", "> "), ("| a |\n|---|\n", "| ")):
            text = f"{head}{row}{'x' * size}\n{'words ' * 40}"

            cut = pages(text, limit=80, measure=len)

            assert not any(page.startswith(head) and "x" not in page for page in cut)


def test_a_line_of_quoted_code_that_is_cut_goes_on_in_the_quote() -> None:
    text = "> ```py\n> " + "x = 1; " * 20 + "\n> ```\nDone."

    cut = pages(text, limit=80, measure=len)

    assert cut[1].startswith("> ```py\n> x = 1;")
    assert cut[-1].endswith("\n> ```\nDone.")


@pytest.mark.parametrize("mark", ["```", "~~~", "- ```", "> ~~~", "``", "``````"])
def test_no_page_begins_with_what_opens_a_fence_only_there(mark: str) -> None:
    for words in range(60, 81):
        text = f"{'w' * 50} {'w' * (words - 51)} {mark}\nAnd so on. " + "And on. " * 9

        cut = pages(text, limit=80, measure=len)

        assert close("".join(cut)) == "".join(cut)
        assert not cut[1].startswith(mark)


@pytest.mark.parametrize(
    "mention", ["<@123456789>", "<@&123456789>", "<:wave:123456789>", "<t:1:R>"]
)
def test_a_mention_is_not_torn(mention: str) -> None:
    for before in range(40, 80):
        cut = pages("w" * before + mention + "w" * 80, limit=80, measure=len)

        assert any(mention in page for page in cut)


def test_no_page_ends_in_a_lone_marker() -> None:
    code = pages("w" * 35 + "\n```py\n``` " + "x" * 80, limit=80, measure=len)
    item = pages("w" * 36 + "\n10. " + "x" * 80, limit=80, measure=len)

    assert code[0].endswith("x\n```")
    assert item[0].endswith("x")


def test_a_fence_that_just_fits_is_not_cut() -> None:
    text = "```py\n" + "x" * 70 + "\n```"

    assert pages(text, limit=len(text), measure=len) == [text]
    assert pages(text + "\n\nAnd so on.", limit=len(text), measure=len) == [text, "\nAnd so on."]


def test_whitespace_at_the_end_never_makes_a_page_or_moves_a_cut() -> None:
    text = "a" * 60 + "\n\n" + "b" * 18

    assert pages(text + "\n" * 100, limit=80, measure=len) == [text]
    assert pages(" \n" * 100, limit=80, measure=len) == []


@pytest.mark.parametrize(
    "piece",
    [
        *("word ", "x", "*", "`", "[", "[a](", "[a](b) ", "(", "<", "https://a("),
        *("```py\ncode\n```\n", "> ```\n", "- ", "1. ", "   1. x\n", "> ", "|", "| a "),
        *("e\u0301", " ", "\n", "-", "="),
    ],
)
def test_a_long_reply_is_cut_in_a_moment(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()

    pages(text, limit=2000, measure=len)

    # Work that is not linear takes minutes.
    assert time.process_time() - began < 10


@pytest.mark.parametrize("piece", ["_ *", "*_ ", "~~ *"])
def test_a_long_block_of_open_marks_is_shown_in_a_moment(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()

    shown = Pager(limit=10**9, measure=len).tidied(text)

    assert len(shown) >= len(text) - len(piece)
    assert time.process_time() - began < 10


def test_a_head_of_a_table_stays_with_its_first_row() -> None:
    text = "word " * 12 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"

    cut = pages(text, limit=80, measure=len)

    assert cut == ["word " * 12 + "\n", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"]


def test_a_table_ends_where_its_rows_end() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\nThen words.\n" + "Words. " * 12

    cut = pages(text, limit=80, measure=len)

    assert not any("| a |" in page for page in cut[1:])


def test_a_page_is_split_behind_the_words_that_were_shown() -> None:
    pager = Pager(limit=200, measure=len)

    assert pager.split("One two three", "One tw") == ["One", "two three"]
    assert pager.split("One two three", "One two") == ["One two", "three"]
    assert pager.split("One **two three** four", "One **two thr") == ["One", "**two three** four"]
    assert pager.split("One two", "Another") == ["One two"]
    assert pager.split("Onetwo three", "Onetw") == ["Onetwo three"]


def test_a_page_that_is_split_in_code_goes_on_in_code() -> None:
    page = "```py\na = 1\nb = 2\n```\nDone."

    assert Pager(limit=200, measure=len).split(page, "```py\na = 1\nb =") == [
        "```py\na = 1\n```",
        "```py\nb = 2\n```\nDone.",
    ]
