"""What people typed in Slack, and what the model's Markdown becomes in a block of Slack's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adapters.slack.markup import markdown_block, readable
from bot.text.markdown import draw_signs
from bot.text.sanitize import unescape

PIECES = ["&", "lt;", "&amp;", "&copy;", "<!channel>", "<@U1>", "<", ">", "(", ")", "`", '"', " "]
TEXTS = st.lists(st.sampled_from([*PIECES, "https://a.example/", "[x](", "?q=1"])).map("".join)


def shown(text: str) -> str:
    return str(markdown_block(text)["text"])


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/?a=1&copy;=2&amp;b=3",
        "see (https://a.example/?a=1&amp;b=2)",
        "[this](https://a.example/x_(y)?a=1&copy;=2)",
        "**https://a.example/?a=1&amp;b=2**",
    ],
)
def test_an_address_leads_where_the_model_said(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("&copy; &amp; & a&b", "&amp;copy; &amp;amp; & a&b"),
        ("[a](https://a.example)&copy;", "[a](https://a.example)&amp;copy;"),
        ('<a href="https://a.example/?a&amp;b">', '&lt;a href="https://a.example/?a&amp;amp;b">'),
        ("`https://a.example/?a&amp;b`", "`https://a.example/?a&amp;amp;b`"),
    ],
)
def test_elsewhere_an_entity_is_shown_as_it_is_spelt(text: str, block: str) -> None:
    assert shown(text) == block


@given(TEXTS)
def test_nothing_opens_markup_through_an_address(text: str) -> None:
    assert "<" not in shown(text)


@pytest.mark.parametrize(
    ("wire", "typed"),
    [
        ("<@UBOT> why?", "why?"),
        ("<@UBOT>: why?", "why?"),
        ("hey <@UBOT|parley> why?", "hey why?"),
        ("a\n<@UBOT>\nb", "a\n\nb"),
        ("<@U1|ann> and <@W2>", "@Ann and @somebody"),
        ("see <https://a.example/?x=1&amp;y=2>", "see https://a.example/?x=1&y=2"),
        ("see <http://a.example|a.example>", "see a.example"),
        ("see <https://a.example|this>", "see this (https://a.example)"),
        ("<mailto:a@b.example|a@b.example>", "a@b.example"),
        ("<#C1|general> <#C2>", "#general #C2"),
        (
            "<!here> <!channel|channel> <!subteam^S1|@devs> <!subteam^S2>",
            "@here @channel @devs @S2",
        ),
        ("at <!date^1700000000^{time}|noon>", "at noon"),
        ("\u200b <@UBOT>\u2060\ufeff\n", ""),
        ("a &lt; b &amp;&amp; &lt;@U1&gt; &amp;lt;", "a < b && <@U1> &lt;"),
    ],
)
def test_a_message_is_read_as_it_was_typed(wire: str, typed: str) -> None:
    assert readable(wire, bot="UBOT", names={"U1": "Ann"}) == typed


@given(st.text())
def test_a_markdown_block_shows_any_text_and_opens_no_token(text: str) -> None:
    block = markdown_block(text)

    assert "<" not in block["text"]
    assert unescape(block["text"]) == draw_signs(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (
            r"so \(a^2 + b_1 * c_2 * d_3\) is <1 &amp; it",
            r"so a² + b₁ * c₂ * d₃ is <1 &amp; it",
        ),
        (r"\[\frac{x_1}{y_1} \\ z\]", r"\frac{x_1}{y_1} \\ z"),
        ("Then $$a_1 < b_1$$ _so_", "Then a₁ < b₁ so"),
        (r"Half \(a_1 < b", r"Half \(a_1 < b"),
        (r"`\(a\)` and \\ it", r"\(a\) and \\ it"),
    ],
)
def test_formulas_and_what_looks_like_one_are_readable(text: str, read: str) -> None:
    # Guess: Slack's parser follows CommonMark.
    [line] = MarkdownIt("commonmark").parseInline(shown(text))

    assert "".join(part.content for part in line.children or ()) == read
