"""A tool that reads the pages of a file that a prompt has no room for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from bot.domain import FileText, Json, Tool
from bot.languages import later
from bot.text.files import plain_name
from bot.text.graphemes import cut_before
from bot.tools.toolset import Asked, Offered, ToolFailed, ToolResult, whole_number

_MOST_CHARACTERS = 12_000  # of one call
_BEFORE_WORD = 300  # of these
_MOST_NAMES = 20
_PICTURE = "picture"  # the unit of a text that says what one shows; the prompt has all of it
_TOOL = Tool(
    "read_file",
    "Reads on in a file that somebody sent in this conversation, where the text that you see ends, "
    f"up to {_MOST_CHARACTERS:,} characters at a time.",
    {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "description": "The name of the file"},
            "page": {
                "type": "integer",
                "description": "The first page, slide or sheet to read; 1 if the file has none",
            },
            "skip": {
                "type": "integer",
                "description": "How many characters of that page to leave out",
            },
            "word": {
                "type": "string",
                "description": "Begins where this comes next, behind that place",
            },
        },
    },
)


class FilePages:
    """Offers what was read of the files of a question and of those before it."""

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return the tool if any file has a text."""
        files = [one for one in asked.files.values() if one.text and one.unit != _PICTURE]
        return (
            [Offered(_TOOL, "reads", partial(_read, files), sign=later("Reading a file"))]
            if files
            else ()
        )


async def _read(files: Sequence[FileText], arguments: Mapping[str, Json], key: str) -> ToolResult:
    file = _named(files, str(arguments.get("name")))
    begin = _begin(file, arguments)
    text = file.text[begin:]
    text = text[: cut_before(text, _MOST_CHARACTERS)]
    end = begin + len(text)
    page = _page(file, begin)
    pages = text.split("\f")
    if file.total > 1:
        pages = [f"({file.unit} {at} of {file.total})\n{it}" for at, it in enumerate(pages, page)]
    if end < len(file.text):
        skip = end - (file.text.rfind("\f", 0, end) + 1)
        note = f"There is more: call this again with page={_page(file, end)} and skip={skip}."
    elif file.is_cut or _page(file, end) < file.total:
        note = "This is the end of what was read of the file; its rest is not known."
    else:
        note = "This is the end of the file."
    return ToolResult("\n".join([note, *pages]))


def _named(files: Sequence[FileText], name: str) -> FileText:
    """Return the first file of a name, as the prompt shows it. Raises ToolFailed."""
    names = [plain_name(one.name) for one in files]
    wanted = plain_name(name).casefold()
    for one, its_name in zip(files, names, strict=True):
        if its_name.casefold() == wanted:
            return one
    listed = ", ".join(f'"{one}"' for one in dict.fromkeys(names[:_MOST_NAMES]))
    raise ToolFailed(f"There is no text of such a file. There are: {listed}.")


def _begin(file: FileText, arguments: Mapping[str, Json]) -> int:
    """Return the position at which to begin. Raises ToolFailed."""
    page = max(whole_number(arguments.get("page"), default=1), 1)
    starts = [0, *(found.end() for found in re.finditer("\f", file.text))]
    if page > len(starts):
        raise ToolFailed(f"Only {len(starts)} of {file.total} pages of this file were read.")
    begin = starts[page - 1] + max(whole_number(arguments.get("skip"), default=0), 0)
    word = arguments.get("word")
    if isinstance(word, str) and word.strip():
        found = re.compile(re.escape(word.strip()), re.IGNORECASE).search(file.text, begin)
        if not found:
            raise ToolFailed("This does not come in what was read of the file behind that place.")
        begin = max(found.start() - _BEFORE_WORD, begin)
    return min(begin, len(file.text))


def _page(file: FileText, position: int) -> int:
    return file.text.count("\f", 0, position) + 1
