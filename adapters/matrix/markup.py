"""Markdown as the content of a Matrix message: HTML for clients, and the text itself beside it.

The tags are among those of the specification, v1.11, "m.room.message msgtypes". Whatever else a
text has, also HTML, is shown as it is written. Nothing in it notifies anybody: with `m.mentions`,
names in the text count for no push rule (v1.7, "User and room mentions").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from bot.text.markdown import draw_signs
from bot.text.sanitize import whole_characters

# An event has at most 65,536 bytes as canonical JSON (v1.11, "Size limits"), and an edit has the
# text twice. The rest of it, and what the server adds to it, is less than 5,000 bytes.
LIMIT = 16_000
_MOST_HTML = 28_000
# A head of few characters, and as many rows, would be tens of thousands of cells.
_MOST_CELLS = 3_000
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}", re.ASCII)
_ADDRESS = re.compile(r"(?:https?|mailto):", re.IGNORECASE)


def _parser(*rules: str) -> MarkdownIt:
    # Models use line breaks on purpose.
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    parser.validateLink = lambda url: bool(_ADDRESS.match(url))  # type: ignore[method-assign]
    return parser.enable(["strikethrough", *rules])


_PARSER, _WITHOUT_TABLES = _parser("table"), _parser()


def measure(text: str) -> int:
    """Return the bytes of a text in canonical JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) - 2


def content_of(text: str, *, kind: str = "m.text", mentions: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of a message with this Markdown, which notifies only these people.

    HTML that is too large is left out: every client shows the text then.
    """
    text = whole_characters(text)
    content: dict[str, Any] = {"msgtype": kind, "body": text}
    if html := html_of(text):
        content |= {"format": "org.matrix.custom.html", "formatted_body": html}
    return {**content, "m.mentions": {"user_ids": list(mentions)} if mentions else {}}


@lru_cache(maxsize=16)
def html_of(text: str) -> str:
    """Return Markdown as HTML; "" if it has no markup, or that would be too large."""
    rows = text.count("\n|") + 1
    is_large = rows * max(line.count("|") for line in text.split("\n")) > _MOST_CELLS
    parser = _WITHOUT_TABLES if is_large else _PARSER
    tokens = parser.parse(draw_signs(text))
    for token in tokens:
        token.attrs.pop("style", None)  # of a cell: it is not among the attributes
        if not _LANGUAGE.fullmatch(token.info):
            token.info = ""
        token.children = token.children and list(_safe(token.children))
    html = str(parser.renderer.render(tokens, parser.options, {})).strip()
    is_plain = html == f"<p>{escapeHtml(text)}</p>"
    return "" if is_plain or measure(html) > _MOST_HTML else html


def _safe(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield inline tokens with links for images: those would tell a stranger who reads."""
    link = ""
    for token in tokens:
        match token.type:
            case "link_open":
                link = str(token.attrs.get("href") or "")
                token.attrs = {"href": link}  # without a title
            case "image":
                source = "" if link else str(token.attrs.get("src") or "")
                words = Token("text", "", 0, content=token.content or source)
                begin = Token("link_open", "a", 1, attrs={"href": source})
                yield from (begin, words, Token("link_close", "a", -1)) if source else (words,)
                continue
            case "s_open" | "s_close":
                token.tag = "del"
        # The parser does not refuse a link to nowhere.
        if link or token.type not in ("link_open", "link_close"):
            yield token
        if token.type == "link_close":
            link = ""
