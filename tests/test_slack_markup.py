"""What the model's Markdown becomes in a block of Slack's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.slack.markup import markdown_block

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
