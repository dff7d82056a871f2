"""Every sentence that a person can read is plain; `pytest -n 0 -s` prints them all.

What counts is a text of two words or more in the code of a room, unless it goes to the log, to a
metric, or into an exception for developers. Rooms of operators may speak of tokens and turns.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import groupby

import pytest

from tests.support.process import ROOT

PEOPLE = (
    "bot/errors.py",
    *(f"bot/{name}/*.py" for name in ("access", "commands", "files", "intake")),
    "bot/reply/draft.py",
    "bot/text/files.py",
    "adapters/console/*.py",
    *(
        f"adapters/discord/gateway/{name}.py"
        for name in ("buttons", "calls", "client", "commands", "forms", "interactions")
    ),
    "adapters/discord/registration.py",
    "adapters/slack/commands/*.py",
    "adapters/slack/inbound/events.py",
    "adapters/slack/reply/status.py",
    *(f"adapters/web/{name}.py" for name in ("api", "follower", "server", "sign_in")),
    "adapters/web/static/*.js",
    "adapters/web/static/*.html",
)
OPERATORS = (
    "bot/__main__.py",
    *(f"bot/{name}/*.py" for name in ("app", "local", "model")),
    "config/*.py",
    "adapters/discord/setup.py",
    "adapters/slack/setup.py",
    "adapters/slack/workspace.py",
)

_WORDS = re.compile(r"[A-Za-z]{2,}[,.:;]? [A-Za-z{]")
_SCRIPT = "redis.call"
_JS_TEXT = re.compile(r'"([^"\n]*)"|`([^`\n]*)`')
# What is called with words that no person reads.
_UNSEEN = {"log", "_log", "logging", "re", "Counter", "Gauge", "Histogram"}
_UNSEEN |= {
    name
    for name, it in vars(builtins).items()
    if isinstance(it, type) and issubclass(it, BaseException)
}

_MOST_WORDS = 32  # without a full stop
_MAKERS = re.compile(
    r"\b(whoever|anew|mend|set me up|as set up|am to answer|choice back|taken back the"
    r"|begins? again)\b",
    re.IGNORECASE,
)
_INTERNAL = re.compile(
    r"\b(operator|turns?(?! on| off)|lease|fence|delta|intake|admission|surface|grows|growing"
    r"|(?<![Aa] )token|\w+(Error|Unavailable|Refused))\b"
)
_INSIDE = re.compile(r"[a-z{}`*)][.?!] [A-Z]")  # a sentence ends within the text
_END = re.compile(r"[.?!:…)`*}>]$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text of the source; a value within it is written as {}."""

    room: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.room}:{self.line}: {self.text}"


class _Texts(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        names = [one.id for one in ast.walk(node.func) if isinstance(one, ast.Name)]
        if not _UNSEEN.intersection(names):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append((node.lineno, node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
        self.found.append((node.lineno, "".join(map(str, parts))))


class _Shown(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = ("title", "placeholder", "aria-label")
        self.found += [
            (self.getpos()[0], value) for name, value in attrs if value and name in shown
        ]

    def handle_data(self, data: str) -> None:
        self.found.append((self.getpos()[0], data.strip()))


def texts_in(name: str, source: str) -> list[tuple[int, str]]:
    if name.endswith(".py"):
        python = _Texts()
        python.visit(ast.parse(source))
        return python.found
    if name.endswith(".html"):
        page = _Shown()
        page.feed(source)
        return page.found
    lines = enumerate(source.splitlines(), 1)
    code = ((at, line) for at, line in lines if not line.strip().startswith(("//", "*", "import")))
    return [(at, one[1] or one[2] or "") for at, line in code for one in _JS_TEXT.finditer(line)]


def sentences(*patterns: str) -> Iterator[Sentence]:
    for path in (path for pattern in patterns for path in sorted(ROOT.glob(pattern))):
        room = str(path.relative_to(ROOT))
        for line, text in texts_in(room, path.read_text(encoding="utf-8")):
            if _WORDS.search(text) and _SCRIPT not in text:
                yield Sentence(room, line, re.sub(r"\$\{[^}]*\}", "{}", text).strip())


def flaws(one: Sentence, *, for_people: bool) -> Iterator[str]:
    """Yield what is wrong with a sentence."""
    text = one.text
    if found := _MAKERS.search(text) or (for_people and _INTERNAL.search(text)):
        yield f"says {found[0]!r}"
    if "  " in text or text.count("—") > 1:
        yield "has two spaces or dashes"
    longest = max(len(part.split()) for part in re.split(r"[.?!:]\s|\n", text))
    if longest > _MOST_WORDS:
        yield f"has {longest} words without a stop"
    if for_people and _INSIDE.search(text) and not _END.search(text):
        yield "has no end"


@pytest.mark.parametrize("readers", ["people", "operators"])
def test_sentences_are_plain(readers: str) -> None:
    for_people = readers == "people"
    found = [*sentences(*(PEOPLE if for_people else OPERATORS))]
    for room, its in groupby(found, key=lambda one: one.room):
        print(f"\n{room}", *(f"  {one.line}: {one.text}" for one in its), sep="\n")

    wrong = [
        f"{one} ({', '.join(it)})" for one in found if (it := [*flaws(one, for_people=for_people)])
    ]

    assert len(found) > 200
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("Whoever runs me can change that.", "says 'Whoever'"),
        ("Your turn waits.", "says 'turn'"),
        ("Please  ask again.", "has two spaces or dashes"),
        ("I am busy. Please ask again", "has no end"),
        ("word " * 40, "has 40 words without a stop"),
    ],
)
def test_a_flaw_is_found(text: str, flaw: str) -> None:
    assert [*flaws(Sentence("bot/errors.py", 1, text.strip()), for_people=True)] == [flaw]
