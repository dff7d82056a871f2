"""Markdown as terminal text, block by block; the input cannot contribute escape sequences."""

from __future__ import annotations

import io
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from bot.text.sanitize import strip_controls

_LEAST_WIDTH = 20  # columns; in a narrower window lines break anywhere
# The terminal's own colours, which are readable on a dark and on a light background.
_CODE_THEME = "ansi_dark"
# Without rich's black behind code.
_THEME = Theme(
    {"markdown.code": "bold cyan", "markdown.h1": "bold underline", "markdown.hr": "dim"}
    | {f"markdown.h{level}": "bold" for level in range(2, 7)}
)
# HTML is shown as text; rich would drop it.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_BLOCKS = MarkdownIt("commonmark").enable("table").disable("inline")  # for their boundaries only
# As in markdown.js: what is kept (such as code), or a formula or its lone sign, to be hidden.
_FORMULA = re.compile(
    r"(\\[\\$]|https?://\S+|(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).)*?(?<!`)\2(?!`))"
    r"|\\\((?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\]|\\[^()])){1,3000}\\\)"
    r"|\\\[(?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\]|\\[^[\]])){1,3000}\\\]"
    r"|\$\$(?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\$]|\\.|\$(?!\$))){1,3000}\$\$"
    r"|\$(?![\s$])(?:[^\\$*\n]|\*(?!\*)|\\.){1,3000}(?<!\s)(?<!\s\*)\$(?!\d)"
    r"|\\[()[\]]",
    re.DOTALL,
)
_HIDDEN = {ord(sign): 0xEE00 + ord(sign) for sign in string.punctuation}
_SHOWN = {hidden: sign for sign, hidden in _HIDDEN.items()}

# In rendered lines, with the codes of their styles.
_BLANKS = re.compile(r"(?:\x1b\[[\d;]*m| )+$", re.MULTILINE)
_EMPTY = re.compile(r"^(?:\x1b\[[\d;]*m)+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BlockUpdate:
    """`finished` is final text to print; `live` may still change.

    `anew`: text printed before is void.
    """

    finished: str = ""
    live: str = ""
    anew: bool = False


class BlockSplitter:
    """Splits one growing reply into blocks; returns each finished block once."""

    def __init__(self) -> None:
        self._finished = ""

    def show(self, text: str, *, last: bool) -> BlockUpdate:
        """Process the current full text."""
        anew = not text.startswith(self._finished)
        if anew:
            self._finished = ""
        rest = text[len(self._finished) :]
        end = len(rest) if last else _start_of_last_block(rest)
        self._finished += rest[:end]
        return BlockUpdate(rest[:end].strip("\n"), rest[end:], anew)


def _start_of_last_block(text: str) -> int:
    blocks = [token.map[0] for token in _BLOCKS.parse(text) if token.level == 0 and token.map]
    lines = text.split("\n")[: blocks[-1]] if blocks else []
    return sum(len(line) + 1 for line in lines)


class Renderer:
    """Renders for one terminal; its environment (NO_COLOR, TERM) decides on colours."""

    def __init__(self) -> None:
        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            highlight=False,
            markup=False,
            emoji=False,
            theme=_THEME,
        )

    def markdown(self, text: str, *, width: int) -> str:
        """Return a rendered Markdown text without a trailing line break.

        Line breaks stay, and links show their addresses.
        """
        hidden = _FORMULA.sub(
            lambda found: found[0] if found[1] else found[0].translate(_HIDDEN),
            strip_controls(text),
        )
        return self._rendered(_Markdown(hidden), width).translate(_SHOWN)

    def text(self, text: str, *, width: int, style: str = "") -> str:
        """Return a text, wrapped between words; `style` is a style of rich."""
        return self._rendered(Text(strip_controls(text), style=style), width)

    def _rendered(self, renderable: RenderableType, width: int) -> str:
        self._console.width = max(width, _LEAST_WIDTH)
        with self._console.capture() as captured:
            self._console.print(renderable)
        # Trailing blanks would wrap in a narrower window.
        text = _BLANKS.sub(lambda found: found[0].replace(" ", ""), captured.get())
        return _EMPTY.sub("", text).strip("\n")


class _Heading(Heading):
    """A left-aligned heading; rich centres those of the first level."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}


class _CodeBlock(CodeBlock):
    """Code without a background and without blanks that a copy would contain, but indented."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        syntax = Syntax(
            code, self.lexer_name, theme=self.theme, word_wrap=True, background_color="default"
        )
        yield Padding(syntax, (0, 0, 0, 2))


class _Table(TableElement):
    """A table without empty lines around it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
            yield table


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=_CODE_THEME, hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            token.children = token.children and list(_inline(token.children))


def _inline(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "softbreak":
            # As on other platforms: models use line breaks on purpose.
            yield Token("hardbreak", "br", 0)
        elif token.type == "image":
            yield Token("link_open", "a", 1, attrs={"href": token.attrs.get("src", "")})
            yield Token("text", "", 0, content=token.content or "image")
            yield Token("link_close", "a", -1)
        elif token.type.startswith("link_") and token.markup == "autolink":
            # Its text is its address.
            continue
        else:
            yield token
