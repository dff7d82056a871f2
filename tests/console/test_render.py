"""Markdown for a terminal, and the blocks in which it grows."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("rich", reason="rendering needs requirements-terminal.txt")

from adapters.console.render import BlockSplitter, Renderer

TEXT = """# Title

A **bold** [link](https://example.org/a), ![image](https://example.org/i.png)
<b>raw</b> <https://example.org/auto>

- one with more words than a narrow window can show in a line
- two

```py
def f():
    return 1
```

End."""


def rendered(markdown: str, width: int = 80) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", Renderer().markdown(markdown, width=width))


def test_nothing_of_a_text_is_left_out_or_acts() -> None:
    assert rendered(TEXT).split("\n") == [
        *("Title", ""),
        "A bold link (https://example.org/a), image (https://example.org/i.png)",
        *("<b>raw</b> https://example.org/auto", ""),
        *(" • one with more words than a narrow window can show in a line", " • two", ""),
        *("  def f():", "      return 1", "", "End."),
    ]
    assert "\x1b[2J" not in Renderer().markdown("a\x1b[2J\x9b2J `\x1b[2J`", width=80)


def test_formulas_are_shown_as_they_are_written() -> None:
    text = r"""Take \(a^2 * b_1 * c\), $x_i * y * \{1\}$, \$5 or $6 to $7, `\(a\)` and

\[
a \\
+ b * c * d
\]"""

    assert rendered(text).split("\n") == [
        r"Take \(a^2 * b_1 * c\), $x_i * y * \{1\}$, $5 or $6 to $7, \(a\) and",
        *("", r"\[", r"a \\", "+ b * c * d", r"\]"),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"Use \( in sed. **Do** _this_.", r"Use \( in sed. Do this."),
        ("Set $HOME or **$PATH**, or *$HOME*", "Set $HOME or $PATH, or $HOME"),
        ("It costs $5 **more** than US$.", "It costs $5 more than US$."),
        ("$$ **a**", "$$ a"),
    ],
)
def test_what_only_begins_like_a_formula_is_none(text: str, shown: str) -> None:
    assert rendered(text) == shown


def test_lines_break_between_words_and_end_without_blanks() -> None:
    lines = rendered(TEXT, width=30).split("\n")

    assert " • one with more words than a" in lines
    assert max(map(len, lines)) <= 30
    assert all(line == line.rstrip() for line in lines)


def test_each_block_is_finished_once_and_all_at_the_end() -> None:
    growing = BlockSplitter()
    finished = [growing.show(TEXT[:end], last=False).finished for end in range(len(TEXT))]
    finished.append(growing.show(TEXT, last=True).finished)

    assert "\n\n".join(filter(None, finished)) == TEXT


def test_a_text_that_changes_is_begun_anew() -> None:
    growing = BlockSplitter()
    growing.show("One\n\nTwo\n\nThree", last=False)
    growth = growing.show("Another", last=False)

    assert (growth.anew, growth.finished, growth.live) == (True, "", "Another")
