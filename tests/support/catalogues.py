"""Finds the sentences that people read in the source: those that are said, and those that are not.

In Python a sentence is said by `say("…", name=value)`, put aside for that by `later("…")` or as a
constant of a module that is said by its name, or is the `apology` of an error or what one is raised
with. In scripts it is `t("…", { name: value })`; in HTML, the text between two tags, or a title,
placeholder or label.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from tests.support.process import ROOT

LANGUAGES = ("de", "fr", "es", "ja")
STATIC = "adapters/web/static"
_SCRIPTED = re.compile(r"\bt\(\s*(\"(?:[^\"\\]|\\.)*\")")
_NAMES = re.compile(r"\{(\w+)\}")
# What is the same in every language: names, keys, and the names of languages.
UNTRANSLATED = {"Parley", "Markdown", "JSON", "Enter", "Shift", "Ctrl", "Escape", "K", "O", "+"}
UNTRANSLATED |= {
    "English",
    "Deutsch",
    "Français",
    "Español",
    "日本語",
    "↑",
    "·",
    ".",
    "Log in · Parley",
}


def names_in(sentence: str) -> list[str]:
    """Return the names of the values in a sentence, in the order of the alphabet."""
    return sorted(_NAMES.findall(sentence))


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return a catalogue; a sentence that stands in it twice is an error."""
    pairs: list[tuple[str, str]] = json.loads(
        (ROOT / f"bot/languages/{language}.json").read_text(encoding="utf-8"),
        object_pairs_hook=lambda found: found,
    )
    assert len(dict(pairs)) == len(pairs), f"{language}.json has a sentence twice"
    return dict(pairs)


@cache
def said() -> Mapping[str, str]:
    """Return all sentences that are said, each with a place in the source."""
    found: dict[str, str] = {}
    rooms = (*sorted(ROOT.glob("bot/**/*.py")), *sorted(ROOT.glob("adapters/**/*.py")))
    for path in (one for one in rooms if one.parent.name != "app"):  # which operators read
        for line, sentence in _Said.of(path).found:
            found.setdefault(sentence, f"{path.relative_to(ROOT)}:{line}")
    for name, text in _texts("js"):
        for one in _SCRIPTED.findall(text):
            found.setdefault(json.loads(one), f"{name}: t()")
    for name, text in _texts("html"):
        page = _Page()
        page.feed(text)
        for sentence in page.found:
            found.setdefault(sentence, name)
    return found


def _texts(ending: str) -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / STATIC).glob(f"*.{ending}")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


class _Said(ast.NodeVisitor):
    """The sentences of one module, with their lines."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[int, str]] = []
        self._wanted = set[str]()  # local names of the function that is visited
        self._constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        self._imported = {
            one.asname or one.name: (node.module, one.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module
            for one in node.names
        }

    @staticmethod
    @cache
    def of(path: Path) -> _Said:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = _Said(tree)
        made.visit(tree)
        return made

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if node.args and called in ("say", "later", *_RAISED):
            self._note(node.args[0])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        is_problem = any(isinstance(it, ast.Name) and it.id == "StrEnum" for it in node.bases)
        for one in node.body:
            if isinstance(one, ast.Assign | ast.AnnAssign) and one.value:
                target = one.targets[0] if isinstance(one, ast.Assign) else one.target
                named = isinstance(target, ast.Name) and target.id == "apology"
                if named or (is_problem and node.name == "Problem"):
                    self._note(one.value)

    def _note(self, node: ast.expr) -> None:
        """Note the text, or the texts between which an expression chooses."""
        match node:
            case ast.Constant(value=str(text)) if text:
                self.found.append((node.lineno, text))
            case ast.IfExp(body=one, orelse=other):
                self._note(one)
                self._note(other)
            case ast.BoolOp(values=values):
                for one in values:
                    self._note(one)
            case ast.Call(args=[one]) if ast.unparse(node.func) == "_Apology":
                self._note(one)
            case ast.Name(id=name):
                self._note_constant(name)
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                if found := self._imported.get(module):
                    self._note_imported(".".join(found), name)

    def _note_constant(self, name: str) -> None:
        if name in self._constants:
            self._note(self._constants[name])
        elif name in self._imported:
            self._note_imported(*self._imported[name])
        else:
            # A local name: every text that the function gives it.
            self._wanted.add(name)

    def _note_imported(self, module: str, name: str) -> None:
        path = ROOT / f"{module.replace('.', '/')}.py"
        if path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            there = _Said(tree)
            if name in there._constants:
                there._note(there._constants[name])
                self.found += there.found

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        before = self._wanted
        self._wanted = set[str]()
        self.generic_visit(node)
        for one in ast.walk(node):
            match one:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    if name in self._wanted and not isinstance(value, ast.Name):
                        self._note(value)
        self._wanted = before

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)


# Errors whose first argument is an apology.
_RAISED = (
    "Refused",
    "NotOffered",
    "NotAllowed",
    "NotTheAsker",
    "HasEnded",
    "InvalidPreference",
    "_Apology",
)


class _Page(HTMLParser):
    """What people read in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = ("title", "placeholder", "aria-label", "label")
        self._note(*(value for name, value in attrs if value and name in shown))

    def handle_data(self, data: str) -> None:
        self._note(data)

    def _note(self, *texts: str) -> None:
        for text in (" ".join(it.split()) for it in texts):
            if text and text not in UNTRANSLATED and "Ctrl+" not in text:
                self.found.append(text)
