"""The files of the queue's scripts, and the table that puts them together."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from bot.turns.script import NEEDS, VERBS, files_of

TEXTS = {
    one.name.removesuffix(".lua"): one.read_text(encoding="utf-8")
    for one in (files("bot.turns") / "scripts").iterdir()
    if one.name.endswith(".lua")
}


def defined(file: str) -> set[str]:
    """Return the functions and constants of a file."""
    functions = re.findall(r"^(?:local )?function ([\w.]+)", TEXTS[file], re.M)
    constants = re.findall(r"^local ([A-Z_, ]+) =", TEXTS[file], re.M)
    return {*functions, *", ".join(constants).split(", ")} - {""}


@pytest.mark.parametrize("file", sorted(NEEDS))
def test_a_script_file_needs_the_files_that_it_uses_and_no_other(file: str) -> None:
    code = re.sub(r"--.*|'[^']*'", "", TEXTS[file])
    used = {*re.findall(r"(?:verbs\.)?\w+", code)}
    owners = {one for one in NEEDS if one != file and defined(one) & used}

    assert owners <= {*files_of(file)}
    assert {*NEEDS[file]} <= owners
    assert len(TEXTS[file].splitlines()) <= 350


def test_each_script_file_and_each_verb_is_in_the_table() -> None:
    verbs = {
        file: re.findall(r"^function verbs\.(\w+)", text, re.M) for file, text in TEXTS.items()
    }

    assert {*TEXTS} == {*NEEDS}
    assert {file: tuple(sorted(one)) for file, one in verbs.items() if one} == VERBS
