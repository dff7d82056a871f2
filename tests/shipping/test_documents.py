"""What the documents name exists: commands, files and headings; the README lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.app.platforms import all_specs
from tests.support.process import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def headings(document: Path) -> set[str]:
    """Return the anchors of a document, as GitHub makes them of its headings."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def links(document: Path) -> list[str]:
    """Return where a document leads within the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"https?:", link)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_of_a_document_leads_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document

        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_the_readme_lists_every_document() -> None:
    listed = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}

    assert {*DOCUMENTS} - {ROOT / "README.md"} <= listed


def test_every_command_that_a_document_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    help_text = (ROOT / "bot" / "__main__.py").read_text(encoding="utf-8")
    texts = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)

    targets = set(re.findall(r"(?:`|^|\| |\$ )make ([a-z-]+)", texts, re.M))
    commands = set(re.findall(r"python -m bot ([a-z-]+)", texts))

    assert {"run", "play", "init", "test"} <= targets
    assert {it for it in targets if not re.search(rf"^{it}:", makefile, re.M)} == set()
    known = set(re.findall(r'(?:add_parser|Command)\(\s*"([a-z-]+)"', help_text))
    assert commands - {it.name for spec in all_specs() for it in spec.commands} <= known
