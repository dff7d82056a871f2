"""Formulas where none are drawn: simple ones are text, the others code."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapters.slack.markup import markdown_block
from bot.text.formulas import as_text
from bot.text.markdown import draw_signs, escape_formulas, settled, without_escapes


@pytest.mark.parametrize(
    ("tex", "line"),
    [
        ("E = mc^2", "E = mc²"),
        (r"a \le b \neq \infty", "a ≤ b ≠ ∞"),
        (r"\alpha_i + \Gamma(n) \cdot \lambda", "αᵢ + Γ(n) · λ"),
        (r"x_{12}^{-1}", "x₁₂⁻¹"),
        (r"\sum_{i=1}^{n} i^2", "∑ᵢ₌₁ⁿ i²"),
        (r"\frac{-b \pm \sqrt{b^2 - 4ac}}{2a}", "(-b ± √(b² - 4ac))/(2a)"),
        (r"\frac{a}{b}c + 2\frac12", "a/b·c + 2·1/2"),
        (r"\text{if } x \in \mathbb{R}^n", "if x ∈ ℝⁿ"),
        (r"\left\{1,\,50\%\right\}", "{1, 50%}"),
        (r"f: A \to B, \sin x", "f: A → B, sin x"),
        (r"e^{i\pi}", None),
        (r"\hat{x}", None),
        (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", None),
        (r"\sqrt[3]{x}", None),
        *(
            (wrong, None)
            for wrong in ("a}", "{", "x^", "x^^2", "\\", r"\frac", r"\text{", "", " ", "{" * 5000)
        ),
    ],
)
def test_only_a_simple_formula_is_a_line_of_text(tex: str, line: str | None) -> None:
    assert as_text(tex) == line


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (r"so \(a^2\) is", "so a² is"),
        (r"\[x_{1} + y_{2} * z\]", r"x₁ + y₂ \* z"),
        ("$$\n\\frac{a}{b} = c_{x,y}\n$$ and _so_", r"`\frac{a}{b} = c_{x,y}` and _so_"),
        (r"- \[-x\]", r"- \-x"),
        (r"take $x_i$ and $e^{i\pi}$", r"take xᵢ and `e^{i\pi}`"),
        ("it costs $5 or $6, about US$ and $20 less", "it costs $5 or $6, about US$ and $20 less"),
        ("in $HOME/bin:$PATH or `$x$`", "in $HOME/bin:$PATH or `$x$`"),
        ("```\n\\(a^2\\)\n```\n\\(b^2\\)", "```\n\\(a^2\\)\n```\nb²"),
        (r"use \( in sed. **Do** _this_.", r"use \\( in sed. **Do** _this_."),
        (r"\(\hat a ` b\)", r"\\(\hat a ` b\\)"),
        ("| $a$ |", "| $a$ |"),
    ],
)
def test_formulas_are_text_or_code_and_the_rest_is_as_it_was(text: str, drawn: str) -> None:
    assert draw_signs(text) == drawn
    assert len(drawn) <= len(escape_formulas(text))


_PARTS = ["\\", "(", ")", "[", "]", "$$", "$", "a", "_", "^", "{", "}", "*", "`", "\n", " ", "2"]
_PARTS += [r"\(x_i\)", r"$x^2$", r"\[\hat a\]", "words ", "- [ ] ", "[^12]"]


@given(st.lists(st.sampled_from(_PARTS)).map("".join))
@example("$x$5")
def test_a_drawn_text_is_never_longer_than_what_is_measured(text: str) -> None:
    assert len(draw_signs(text)) <= len(escape_formulas(text))


@pytest.mark.parametrize(
    "text",
    [
        r"So \(x_1 + x_2\) and $y_1$, then \[a^2\] or $x$5 and $$b_c$$ end.",
        "A list[^1]:\n\n- [ ] task\n- $a_1 * b$ is **bold**\n- \\(c_d\\)\n\n$$\nx_i\n$$\n",
    ],
)
def test_what_is_settled_of_a_growing_text_is_drawn_as_in_the_whole(text: str) -> None:
    whole = markdown_block(text)["text"]

    for end in range(len(text)):
        assert whole.startswith(markdown_block(settled(text[:end]))["text"])


def test_tasks_and_footnotes_are_signs_where_nothing_draws_them() -> None:
    text = """Built[^1] in `a[^1]`, [^2](x).

- [ ] see it[^12]
  1. [X] from above
- [y] no task

```
- [ ] code[^1]
```
[^1]: A book"""

    assert (
        draw_signs(text)
        == """Built¹ in `a[^1]`, [^2](x).

- ☐ see it¹²
  1. ☑ from above
- [y] no task

```
- [ ] code[^1]
```
¹: A book"""
    )


@pytest.mark.parametrize("begun", [r"\(", r"\[", "$$", "$x"])
def test_a_formula_that_does_not_end_is_not_waited_for_for_long(begun: str) -> None:
    assert settled(f"see {begun}") == "see "
    assert settled(long := f"see {begun}" + " more words" * 20) == long


def test_what_is_drawn_is_read_as_it_is_shown() -> None:
    assert without_escapes(draw_signs(r"\(2 * x_i\)")) == "2 * xᵢ"


def test_what_looks_like_a_long_formula_takes_no_second() -> None:
    began = time.perf_counter()
    for text in ("$" + "a" * 50_000 + "$", "$" + "ab " * 20_000 + "$", "$a$" * 20_000):
        assert draw_signs(text)

    assert time.perf_counter() - began < 5
