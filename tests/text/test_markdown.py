"""What is open is closed, what is half written is not shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.reply.pages import Pager
from bot.text.markdown import close, escape_formulas, settled, tidy, without_escapes


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
        ("1. Run:\n\n    ```\n    code", "1. Run:\n\n    ```\n    code\n    ```"),
        ("         - ```\ntoo deep", "         - ```\ntoo deep"),
        ("- ```sh\n  ls\n  ```\nwords", "- ```sh\n  ls\n  ```\nwords"),
        ("- ```sh\n  ls", "- ```sh\n  ls\n  ```"),
        ("```md\n    ```\nstill", "```md\n    ```\nstill\n```"),
        ("> ```py\n> code", "> ```py\n> code\n> ```"),
        ("> ```py\n> code\n>``", "> ```py\n> code\n>```"),
        ("> ```py\n> code\nwords", "> ```py\n> code\nwords"),
        ("> ```py\n> code\n\nwords", "> ```py\n> code\n\nwords"),
        ("> > ```\n> > code", "> > ```\n> > code"),
        ("```inline``` and\nmore", "```inline``` and\nmore"),
        ("```\nx\n```js\ny", "```\nx\n```js\ny\n```"),
    ],
)
def test_close_closes_an_open_fence_and_nothing_else(text: str, closed: str) -> None:
    assert close(text) == closed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("some **bold", "some **bold**"),
        ("```py\ncode\n```", "```py\ncode\n```"),
        ("> ```py\n> code\n> ```", "> ```py\n> code\n> ```"),
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
        ("[a [b] c](https://x_(y", "a [b] c"),
        ("see https://exa", "see"),
        ("**see <https://exa", "**see**"),
        ("see https://example.org/_\n", "see\n"),
        ("    ```\nsee https://exa", "    ```\nsee \n    ```"),
        ("(see https://exa)", "(see https://exa)"),
        ("see https://example.org/ and", "see https://example.org/ and"),
        ("> ```py\n> x = *a", "> ```py\n> x = *a\n> ```"),
        ("> ```\n> x\nsome **bold\nand on", "> ```\n> x\nsome **bold\nand on**"),
        ("words\n- ``", "words\n"),
        ("words\n> ```py", "words\n"),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"so \(a^2\) is", r"so \\(a^2\\) is"),
        (r"\[x_{1} + y_{2} * z\]", r"\\[x\_{1} + y\_{2} \* z\\]"),
        (r"\[\{a\} \\ \frac{1}{2}\]", r"\\[\\{a\\} \\\\ \frac{1}{2}\\]"),
        ("$$a_b$$ and _so_", r"$$a\_b$$ and _so_"),
        ("here $$a_b$$ and _so_\nit", "here $$a\\_b$$ and _so_\nit"),
        ("$$\na_b\n- c\n$$\n_so_", "$$\na\\_b\n\\- c\n$$\n_so_"),
        ("**Luigi** ($$) _a_\n**Mario** ($$) _b_", "**Luigi** ($$) _a_\n**Mario** ($$) _b_"),
        (r"a \\ b \, c \{d\}", r"a \\\\ b \\, c \\{d\\}"),
        (r"no \*list\*, C:\new, \`x\`", r"no \*list\*, C:\new, \`x\`"),
        (r"`\(a\)` and ``\[`` and \(b\)", r"`\(a\)` and ``\[`` and \\(b\\)"),
        ("```\n\\(a\\)\n```\n\\(b\\)", "```\n\\(a\\)\n```\n\\\\(b\\\\)"),
        ("> \\(a\n\nb_c_", "> \\\\(a\n\nb_c_"),
        (r"use \( in sed. **Do** _this_.", r"use \\( in sed. **Do** _this_."),
        (r"\(_ \(a_b\) _c_", r"\\(_ \\(a\_b\\) _c_"),
        ("$$ _a_", "$$ _a_"),
        ("| \\(a\\) |", "| \\(a\\) |"),
        (r"open \(a_b", r"open \\(a_b"),
    ],
)
def test_formulas_are_escaped_and_read_as_they_were_written(text: str, shown: str) -> None:
    assert escape_formulas(text) == shown
    if "*list" not in text:
        assert without_escapes(shown) == text


@given(st.lists(st.sampled_from(["\\", "(", ")", "[", "]", "$$", "a", "_", "*", "`", "\n"])))
@example(["\\", "(", *["\\", "\\", "a"] * 5, "\\", ")"])
def test_a_text_with_formulas_does_not_shrink_when_it_grows(parts: list[str]) -> None:
    lengths = [len(escape_formulas("".join(parts[:end]))) for end in range(len(parts) + 1)]

    assert lengths == sorted(lengths)


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
        ("see https://exa", "see "),
        ("see https://example.org ", "see https://example.org "),
        ("| a | b |\n|---|---|\n| https://exa", "| a | b |\n|---|---|\n| "),
        ("```\nhttps://exa", "```\n"),
        ("    ```\nsee https://exa", "    ```\nsee "),
        ("- a\n\n      ```\nsee https://exa", "- a\n\n      ```\nsee "),
        ("~~~\nsee https://exa", "~~~\nsee "),
        ("see HTTPS://exa", "see "),
        ("see https://example.org/_x and", "see "),
        ("a [b](https://x" + "x" * 300, "a "),
        ("never **closed " + "x" * 300 + " https://exa", "never **closed " + "x" * 300 + " "),
        ("see https://" + "x" * 3000, "see https://" + "x" * 3000),
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


_PARTS = [
    *("see ", "https://a.example/", "HTTP://A", "path", "_", "**", "[b](", ")", "(", "!", "`"),
    *("\n", "    ```\n", "```\n", "~~~\n", "> ", "- ", "| a |\n|---|\n", "<", ">"),
]


@given(st.lists(st.sampled_from(_PARTS)).map("".join))
@example("https://a.example/<https://a.example/_see ")
def test_what_is_settled_ends_with_no_address_that_may_go_on(text: str) -> None:
    beginning = settled(text)
    last = re.split(r"""[\s<>()`"]""", beginning)[-1].lower()

    # The next character of the text may have ended the address already.
    if text[len(beginning) :][:1] != "<":
        assert "http://" not in last
        assert "https://" not in last


FORMULAS = [
    r"\(a^2 + b_1 \cdot x_{i_j}\)",
    r"\[ \int_0^1 x^{*}\,dx = \frac{1}{3} \]",
    "$$\n\\begin{aligned}\na &= b \\\\\nc_1 &= d_{*} \\_ x\n\\end{aligned}\n$$",
    r"\(a\\b * _c\)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_is_no_markup(formula: str) -> None:
    text = f"See {formula} and **bold** words."

    assert tidy(text) == text
    assert settled(text) == text
    for end in range(text.index(formula) + 2, len("See " + formula)):
        assert text.startswith(tidy(text[:end]))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("before", range(60, 140))
def test_a_page_does_not_end_within_a_formula_on_a_line(formula: str, before: int) -> None:
    formula = formula.replace("\n", " ")
    text = "w " * (before // 2) + formula + " and more words" * 5

    pages = Pager(limit=160, measure=len).cut(text)

    assert "".join(pages).count(formula) == 1
