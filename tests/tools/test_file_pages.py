"""A file is read on where the prompt ends, page by page and from a word on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bot.domain import FileText, Json
from bot.tools.file_pages import FilePages
from bot.tools.toolset import Asked, Offered, ToolFailed
from tests.support.at_work import make_turn

PAGES = "\f".join(f"{n}: {'x' * 4990}" for n in range(1, 8))
REPORT = FileText("report.pdf", PAGES, unit="page", total=9)
NOTES = FileText("notes.txt", "a" * 13_000 + " the Zebra " + "b" * 13_000)


async def offered(*files: FileText) -> list[Offered]:
    asked = Asked(make_turn(), files={str(at): one for at, one in enumerate(files)})
    return [*await FilePages().offered(asked)]


async def read(arguments: Mapping[str, Json], *files: FileText) -> list[str]:
    (one,) = await offered(*(files or (REPORT, NOTES)))
    result = await one.run(arguments, "key")
    assert result.foreign
    return result.text.splitlines()


async def test_all_of_a_file_is_read_part_by_part() -> None:
    arguments: dict[str, Json] = {"name": "report.pdf"}
    texts = list[str]()
    while True:
        head, *lines = await read(arguments)
        texts.append("\f".join(line for line in lines if not line.startswith("(page ")))
        if "call this again" not in head:
            break
        page, skip = (part.split("=")[1].rstrip(".") for part in head.split() if "=" in part)
        arguments = {"name": "report.pdf", "page": int(page), "skip": skip}

    assert "".join(texts) == PAGES
    assert head == "This is the end of what was read of the file; its rest is not known."


async def test_each_page_is_named() -> None:
    _, *lines = await read({"name": "REPORT.pdf", "page": 6})

    assert [line for line in lines if line.startswith("(")] == ["(page 6 of 9)", "(page 7 of 9)"]


async def test_a_text_is_read_from_a_word_on() -> None:
    head, text = await read({"name": "notes.txt", "word": "zebra"})
    with pytest.raises(ToolFailed, match="does not come"):
        await read({"name": "notes.txt", "skip": 13_010, "word": "zebra"})

    assert text == NOTES.text[12_705:24_705]
    assert head == "There is more: call this again with page=1 and skip=24705."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "other.pdf"}, 'There are: "report.pdf", "notes.txt"'),
        ({"name": ["report.pdf"]}, "no text of such a file"),
        ({"name": "report.pdf", "page": 8}, "Only 7 of 9 pages"),
    ],
)
async def test_what_is_not_there_is_said(arguments: Any, sentence: str) -> None:
    with pytest.raises(ToolFailed, match=sentence):
        await read(arguments)


@pytest.mark.parametrize("number", ["x", None, -3, 1e400, {}])
async def test_numbers_that_make_no_sense_read_the_beginning(number: Any) -> None:
    head, first, *_ = await read({"name": "notes.txt", "page": number, "skip": number})

    assert first.startswith("aaa")
    assert "skip=12000" in head


async def test_a_whole_file_ends() -> None:
    assert await read({"name": "a.txt"}, FileText("a.txt", "all")) == [
        "This is the end of the file.",
        "all",
    ]


async def test_without_a_text_no_tool_is_offered() -> None:
    unread, picture = FileText("a.pdf", problem="damaged"), FileText("b.png", "A cat", "picture")

    assert not await offered(unread, picture)
    assert not await offered()
