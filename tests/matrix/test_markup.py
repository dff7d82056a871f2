"""Markdown becomes HTML of Matrix that does nothing else, beside the text itself."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.matrix.markup import LIMIT, content_of, html_of, measure
from adapters.matrix.messages import edit_content, page_content
from bot.domain import Page, Person
from tests.support.at_work import make_turn
from tests.web.test_page_safety import PAYLOADS

# Specification v1.11, "m.room.message msgtypes": tags and attributes that clients may show.
ALLOWED = {
    *("del", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "p", "a", "ul", "ol", "li"),
    *("strong", "em", "code", "hr", "br", "table", "thead", "tbody", "tr", "th", "td", "pre"),
}
EVENT = 65_536  # bytes
HOSTILE = (
    *PAYLOADS,
    "[a](https://evil.example \"x' onmouseover=act()\")",
    "[a](<https://e.example/\" onclick=act() x=\">)",
    "[a](https://matrix.to/#/@ann:example.org) @room @ann:example.org",
    '<a href="https://matrix.to/#/@ann:example.org">ann</a> <mx-reply>x</mx-reply>',
    "![x](mxc://example.org/abc) ![x](data:image/svg+xml,<svg/onload=act()>)",
    '<span data-mx-color="#000" data-mx-maths="x">y</span> <font color="red">z</font>',
    "&lt;script&gt; &#60;img src=x onerror=act()&#62; &#x0;",
    "[x]: javascript:act()\n\n[x] [x][x] ![x]",
    "| <img src=x onerror=act()> | [a](javascript:act()) |\n| - | - |\n| `<b>` | <i> |",
    "~~~language-x\" onload=\"act()\n<b>\n~~~",
    "<details><summary>s</summary></details> <!-- c --> <![CDATA[x]]> <?php ?>",
    "[a]() [](<>) [b]( ) ![]() [![c]()]()",
    "> <script>\n> act()\n\n- <style>*{}</style>\n1. <iframe>",
    "\u202e[gpj.exe](https://evil.example) a\u0000b",
)  # fmt: skip


class Reader(HTMLParser):
    """Reads what a client would make of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.others: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment  # type: ignore[assignment]


def expect_harmless(html: str) -> None:
    found = Reader(html)
    assert not found.open
    assert not found.others
    assert set(found.tags) <= ALLOWED
    for tag, name, value in found.attributes:
        match tag, name:
            case "a", "href":
                assert value
                assert value.lower().startswith(("http://", "https://", "mailto:"))
            case "code", "class":
                assert value
                assert value.removeprefix("language-").isprintable()
                assert value.startswith("language-")
            case "ol", "start":
                assert value
                assert value.isdecimal()
            case _:
                raise AssertionError(f"{tag} has {name}={value!r}")


@pytest.mark.parametrize("text", HOSTILE)
def test_each_beginning_of_hostile_markup_is_harmless(text: str) -> None:
    for end in range(1, len(text) + 1):
        expect_harmless(html_of(text[:end]))


_PIECES = [*"<>[)`*_~|\n a\"'&#;!\\$-", "](", "1.", "https://e.example", "javascript:"]


@given(st.lists(st.sampled_from(_PIECES)))
def test_any_markup_is_harmless(parts: list[str]) -> None:
    expect_harmless(html_of("".join(parts)))


@pytest.mark.parametrize("text", HOSTILE)
def test_nobody_is_notified_and_the_text_stays_beside(text: str) -> None:
    content = content_of(text)

    assert content["m.mentions"] == {}
    assert content["body"] == text
    assert content["msgtype"] == "m.text"


def test_markdown_is_shown_as_markup() -> None:
    assert html_of("a **b** *c* ~~d~~ `e<f`") == (
        "<p>a <strong>b</strong> <em>c</em> <del>d</del> <code>e&lt;f</code></p>"
    )
    assert html_of("```python\nx = 1\n```") == (
        '<pre><code class="language-python">x = 1\n</code></pre>'
    )
    assert html_of("one\ntwo") == "<p>one<br />\ntwo</p>"
    assert "<td>1</td>" in html_of("|a|b|\n|:-|-:|\n|1|2|")
    assert html_of("![a cat](https://e.example/cat.png)") == (
        '<p><a href="https://e.example/cat.png">a cat</a></p>'
    )


def test_formulas_and_tasks_are_text() -> None:
    assert html_of("so $x^2 \\le \\pi$") == "<p>so x² ≤ π</p>"
    assert "☑ done" in html_of("- [x] done")


def test_text_without_markup_has_no_html() -> None:
    assert content_of('It "rains" & <pours>.') == {
        "msgtype": "m.text", "body": 'It "rains" & <pours>.', "m.mentions": {}
    }  # fmt: skip


def test_half_a_character_is_replaced() -> None:
    assert content_of("a\ud83d")["body"] == "a\ufffd"


@pytest.mark.parametrize(
    "letter", ["a", "&", "<", '"', "\\", "é", "🎉", "\n", "*a* ", "# a\n", "`x` "]
)
def test_the_longest_page_and_its_edit_fit_an_event(letter: str) -> None:
    text = letter * (LIMIT // measure(letter))
    asker = Person("@" + "p" * 254, "Ann")
    turn = replace(make_turn(person=asker), id="matrix:$" + "e" * 200)
    content = page_content(Page(99, text, final=False), turn)

    size = len(json.dumps(edit_content("$" + "e" * 200, content), ensure_ascii=False).encode())

    assert measure(text + letter) > LIMIT
    assert size < EVENT - 4_000


@given(st.text(), st.text())
def test_a_measure_never_shrinks_and_joins_cost_nothing(one: str, other: str) -> None:
    assert measure(one) <= measure(one + other) <= measure(one) + measure(other)


def test_a_table_of_thousands_of_cells_stays_text() -> None:
    html = html_of("|" * 1000 + "\n" + "|-" * 999 + "|\n" + "|\n" * 1000)

    assert html.startswith("<p>|||")
    assert "<td" not in html


@pytest.mark.parametrize(
    "text",
    [
        "|" * 4000 + "\n" + "|-" * 3999 + "|\n" + "|\n" * 2000,
        "[" * LIMIT,
        "*a " * 5000,
        ">" * LIMIT,
    ],
)
def test_no_page_takes_long(text: str) -> None:
    began = time.process_time()
    html_of(text)

    assert time.process_time() - began < 2.0
