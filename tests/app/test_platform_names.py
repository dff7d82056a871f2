"""The core names no platform: what it knows of one comes from its spec."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

from bot.app.platforms import all_specs

ROOT = Path(__file__).parents[2] / "bot"
LIST = ROOT / "app" / "platforms.py"  # of the built-in ones


def texts(source: str) -> list[str]:
    """Return the names and the strings of a module but its docstrings, which may give examples."""
    found, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and before in (
            tokenize.NEWLINE,
            tokenize.INDENT,
        )
        if token.type in (tokenize.NAME, tokenize.STRING) and not is_docstring:
            found.append(token.string)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
    return found


def test_the_core_names_no_platform() -> None:
    names = [spec.name for spec in all_specs()]
    chat = re.compile(r"discord|slack", re.IGNORECASE)
    literal = re.compile(rf"""['"]({"|".join(names)})['"]""")

    named = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in ROOT.rglob("*.py")
        if path != LIST
        for text in texts(path.read_text(encoding="utf-8"))
        if chat.search(text) or literal.fullmatch(text)
    }

    assert named == set()
