"""Pages fit, stay as they are, lose nothing, and each reads well alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.guard import escape_markup
from bot.markdown import close, settled, tidy
from bot.pages import SMALLEST_LIMIT, Measure, Pager


def pages(text: str, *, limit: int, measure: Measure) -> list[str]:
    return Pager(limit=limit, measure=measure).cut(text)


def escaped_bytes(text: str) -> int:
    return len(escape_markup(text).encode())


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


MEASURES = st.sampled_from([len, escaped_bytes, utf16_units])
LIMITS = st.integers(SMALLEST_LIMIT, 120)
PLAIN = [
    *(
        "word ",
        "Sentence. ",
        "longlonglongword",
        "\n",
        "\n\n",
        " ",
        "# Title\n",
        "- item\n",
        "ü",
        "&",
    ),
    *("`code span`", "`open", "``", "[link](https://example.org/a_(b))", "[open", "**bold text**"),
    *(
        "https://example.org/?q=1&r=<2>",
        "e\u0301",
        "👩\u200d🚀",
        "🇩🇪",
        "👍🏽",
        "漢字。",
        "\t",
        "x" * 60,
    ),
]
FENCES = [
    *(
        "```python\n",
        "```\n",
        "```",
        "\n```\n",
        "~~~\n",
        "~~~",
        "   ```sh\n",
        "````md\n",
        "  ````\n",
    ),
    *("```" + "x" * 50 + "\n", "~" * 9 + "\n", "    indented = 1\n", "code()\n", "`", "``\n"),
]
BLOCKS = [
    *(
        "| a | b |\n",
        "|---|---|\n",
        "| 1 | 2 |\n",
        "|",
        "| - ",
        "1. first\n",
        "1. next\n",
        "2) x\n",
    ),
    *("   goes on\n", "> quote\n", "<@123>", "*a*", "~~b~~", "**", "_"),
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
    if not first and newline and head.lstrip(" ")[:3] in ("```", "~~~"):
        starts.append(rest)
    for start in starts:
        yield start
        tail = start.rpartition("\n")[2]
        if not last and tail.strip(" ")[:3] in ("```", "~~~"):
            yield start[: len(start) - len(tail)]
            yield start[: len(start) - len(tail) - 1]


def joins(text: str, cut: list[str], at: int = 0) -> bool:
    """Whether the pages are the text, but for one whitespace character at each cut."""
    if not cut:
        return not text[at:].strip()
    page, *others = cut
    starts = [at] if not at or not text[at].isspace() else [at, at + 1]
    return any(
        text.startswith(body, start) and joins(text, others, start + len(body))
        for body in bodies(page, first=not at, last=not others)
        for start in starts
    )


@given(ANY, LIMITS, MEASURES)
@example("text\n   ```\n" + "code\n" * 6 + "```" + "y" * 40, 50, len)
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
@example("word word word word \n`````python\n```\nword word ", 50)
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


@given(ANY, LIMITS, MEASURES)
def test_what_is_shown_meanwhile_fits(text: str, limit: int, measure: Measure) -> None:
    pager = Pager(limit=limit, measure=measure)

    assert all(measure(pager.tidied(page)) <= limit for page in pager.cut(text))


@given(ANY, st.integers(200, 300))
def test_each_row_of_a_table_that_is_cut_stands_below_its_head(text: str, limit: int) -> None:
    head = "| a | b |\n|---|---|\n"
    rows = [f"| {number} | {text[:9]!r} |" for number in range(40)]

    cut = pages(head + "\n".join(rows), limit=limit, measure=len)

    assert all(page.startswith(head) for page in cut)
    assert "\n".join(page.removeprefix(head) for page in cut) == "\n".join(rows)


@given(TEXTS)
def test_a_text_that_needs_no_cut_is_one_page_as_it_is(text: str) -> None:
    cut = pages(text, limit=10_000, measure=len)

    assert cut == ([text] if text.strip() else [])


@pytest.mark.parametrize(
    "cluster",
    ["👨\u200d👩\u200d👧", "🇩🇪", "👍🏽", "e\u0301\u0323", "❤\ufe0f", "\u1112\u1161\u11ab"],
)
@pytest.mark.parametrize("limit", range(50, 57))
def test_no_character_is_torn(cluster: str, limit: int) -> None:
    cut = pages(cluster * 60, limit=limit, measure=len)

    assert all(page == cluster * (len(page) // len(cluster)) for page in cut)
    assert "".join(cut) == cluster * 60


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("a" * 40 + "\n\n" + "b" * 15 + "\n" + "c" * 50, "a" * 40 + "\n", "b" * 15 + "\n"),
        ("a" * 30 + "\n" + "b. b b b " * 9, "a" * 30, "b. b b"),
        ("a" * 30 + ". " + "b " * 30, "a" * 30 + ".", "b b b"),
        ("a" * 30 + " " + "b" * 50, "a" * 30, "b" * 50),
        ("a" * 80, "a" * 60, "a" * 20),
        ("漢" * 40 + "。" + "字" * 60, "漢" * 40 + "。", "字字"),
        ("a " * 20 + "`code that is very long` b", ("a " * 20)[:-1], "`code that is very long` b"),
        ("a " * 20 + "[a link](https://example.org) b", ("a " * 20)[:-1], "[a link](https"),
        ("some words\n" + "https://example.org/" + "p" * 39, "some words", "https://"),
        ("a " * 20 + "**bold and more bold** b", ("a " * 20)[:-1], "**bold and"),
        ("a" * 40 + "\n\n## Title\n\n" + "b" * 60, "a" * 40 + "\n", "## Title\n\nb"),
        (
            "a" * 20 + "\n```py\n" + "b" * 60,
            "a" * 20 + "\n```py\n" + "b" * 29 + "\n```",
            "```py\nb",
        ),
        ("a" * 40 + "\n```py\n" + "code\n" * 3 + "```", "a" * 40, "```py\ncode\n"),
    ],
)
def test_pages_are_cut_at_the_best_place(text: str, first: str, second: str) -> None:
    cut = pages(text, limit=60, measure=len)

    assert cut[0] == first
    assert cut[1].startswith(second)


def test_a_fence_that_is_cut_is_closed_and_opened_again_with_its_language() -> None:
    text = "Look:\n  ```python title=x\n" + "line = 1\n" * 9 + "  ```\nDone."

    cut = pages(text, limit=60, measure=len)

    assert cut == [
        "Look:\n  ```python title=x\nline = 1\nline = 1\nline = 1\n  ```",
        "  ```python\nline = 1\nline = 1\nline = 1\nline = 1\n  ```",
        "  ```python\nline = 1\nline = 1\n  ```\nDone.",
    ]


def test_a_fence_that_just_fits_is_not_cut() -> None:
    text = "```py\n" + "x" * 50 + "\n```"

    assert pages(text, limit=len(text), measure=len) == [text]
    assert pages(text + "\n\nAnd so on.", limit=len(text), measure=len) == [text, "\nAnd so on."]


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("plain `open", "plain `open"),
        ("```py\ncode", "```py\ncode\n```"),
        ("```py\ncode\n", "```py\ncode\n```"),
        ("```py\ncode\n``", "```py\ncode\n```"),
        ("```py\ncode\n```", "```py\ncode\n```"),
        ("```py\ncode\n```\n", "```py\ncode\n```\n"),
        ("```py\n", "```py\n```"),
        ("```py", "```py"),
        ("  ~~~ text\n```\n", "  ~~~ text\n```\n  ~~~"),
        ("````\n```\ninner", "````\n```\ninner\n````"),
        ("    ```\nindented code", "    ```\nindented code"),
        ("```inline``` and\nmore", "```inline``` and\nmore"),
        ("```\nx\n```js\ny", "```\nx\n```js\ny\n```"),
    ],
)
def test_close_closes_an_open_fence_and_nothing_else(text: str, closed: str) -> None:
    assert close(text) == closed


def test_whitespace_at_the_end_never_makes_a_page_or_moves_a_cut() -> None:
    text = "a" * 40 + "\n\n" + "b" * 18

    assert pages(text + "\n" * 100, limit=60, measure=len) == [text]
    assert pages(" \n" * 100, limit=60, measure=len) == []


def test_a_limit_too_small_for_fences_is_refused() -> None:
    with pytest.raises(ValueError, match="limit=49"):
        pages("text", limit=49, measure=len)


@pytest.mark.parametrize("piece", ["word ", "x", "*", "`", "[a](", "```py\ncode\n```\n", "e\u0301"])
def test_a_long_reply_is_cut_in_a_moment(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.process_time()

    pages(text, limit=2000, measure=len)

    # Hundreds of times what is needed would show that the work is not linear.
    assert time.process_time() - began < 1.5


def test_a_head_of_a_table_stays_with_its_first_row() -> None:
    text = "word " * 8 + "\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"

    cut = pages(text, limit=60, measure=len)

    assert cut == ["word " * 8 + "\n", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"]


def test_a_table_ends_where_its_rows_end() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\nThen words.\n" + "Words. " * 12

    cut = pages(text, limit=60, measure=len)

    assert not any("| a |" in page for page in cut[1:])


@pytest.mark.parametrize("marker", [".", ")"])
def test_a_list_that_is_cut_keeps_its_numbers(marker: str) -> None:
    text = "\n".join(f"1{marker} item number {word}" for word in "abcdefgh")

    cut = pages(text, limit=60, measure=len)

    firsts = [page.partition(" ")[0] for page in cut]
    assert firsts == [f"1{marker}", f"4{marker}", f"7{marker}"]


def test_another_list_has_numbers_of_its_own() -> None:
    text = "1. one\n2. two\n\nNow another, and it is a new one:\n\n1. first\n2. second\n3. third"

    cut = pages(text, limit=60, measure=len)

    assert cut[1].startswith("1. first")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("some **bold", "some **bold**"),
        ("some **bold*", "some **bold**"),
        ("some **bold** and *it", "some **bold** and *it*"),
        ("some **", "some"),
        ("**bold _and", "**bold _and_**"),
        ("see `co", "see `co`"),
        ("see ``a ` b", "see ``a ` b``"),
        ("see `", "see"),
        ("snake_case and 2*3 and 4 * 5", "snake_case and 2*3 and 4 * 5"),
        (r"\*not", r"\*not"),
        ("~~gone", "~~gone~~"),
        ("a [link](https://exa", "a link"),
        ("a [link](https://example.org)", "a [link](https://example.org)"),
        ("a [li", "a [li"),
        ("![image](https://x", "image"),
        ("**a\n\nnext", "**a\n\nnext"),
        ("* item\n* **bo", "* item\n* **bo**"),
        ("words\n-", "words\n"),
        ("words\n##", "words\n"),
        ("words\n``", "words\n"),
        ("words\n```py", "words\n"),
        ("words\n```py\nx", "words\n```py\nx\n```"),
        ("| a | b |", ""),
        ("words\n\n| a | b |\n|--", "words\n\n"),
        ("| a | b |\n|---|---|", "| a | b |\n|---|---|"),
        ("| a | b |\n|---|---|\n| 1", "| a | b |\n|---|---|\n| 1"),
        ("```\ncode\n```\n**b", "```\ncode\n```\n**b**"),
    ],
)
def test_unfinished_markup_is_shown_closed(text: str, shown: str) -> None:
    assert tidy(text) == shown


def test_eight_thousand_deltas_are_cut_and_shown_in_a_moment() -> None:
    pager = Pager(limit=2000, measure=len)
    words = [f"**word** {number}, `x`. " + "\n\n" * (number % 40 == 0) for number in range(8000)]
    text = ""
    began = time.process_time()

    for number, word in enumerate(words):
        text += word
        if number % 8 == 0:
            pager.tidied(pager.cut(text)[-1])

    assert time.process_time() - began < 1.5


@given(ANY)
def test_what_is_settled_is_the_beginning_of_the_text(text: str) -> None:
    assert text.startswith(settled(text))


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("plain words", "plain words"),
        ("some **bold", "some "),
        ("some **bold** and *it", "some **bold** and "),
        ("see `co", "see "),
        ("a [link](https://exa", "a "),
        ("a [li", "a "),
        ("wow!", "wow"),
        ("a [link](https://example.org)", "a [link](https://example.org)"),
        ("words\n##", "words\n"),
        ("words\n```py", "words\n"),
        ("words\n```py\nx", "words\n```py\nx"),
        ("| a | b |\n|--", ""),
        ("| a | b |\n|---|---|\n| 1", "| a | b |\n|---|---|\n| 1"),
        ("never **closed " + "x" * 300, "never **closed " + "x" * 300),
    ],
)
def test_only_what_cannot_change_any_more_is_settled(text: str, beginning: str) -> None:
    assert settled(text) == beginning
