"""Reads each kind of file; an ImportError says that its package is not installed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from io import BytesIO
from typing import IO
from zipfile import ZipFile

from bot.files.kinds import WIDE_MARKS, Kind, Problem, Unreadable

MOST_CHARACTERS = 400_000  # of a file; of a part, little more is made
_EXAMINED = 50_000  # bytes from which an encoding is found out
_COMMON = "cp1252"  # what most files without Unicode have, if they are too short to tell
_DOCUMENT = re.compile(r"word/(document\d*|endnotes|footnotes)\.xml")
_PRESENTATION, _RELATIONS = "ppt/presentation.xml", "ppt/_rels/presentation.xml.rels"
# What the end of an element of documents and slides stands for; a cell's paragraphs are on a line.
_ENDS = {"p": "\n", "tr": "\n", "br": "\n", "cr": "\n", "tab": "\t", "tc": "\t"}
_DEEPEST = 1_000  # elements within each other; a million take ten seconds
_MOST_COLUMNS = 256  # of a row; of a wider one only the cells that are not empty are shown


# The `unit` and `total` of FileText, and the texts, each made when it is asked for.
Parts = tuple[str, int, Iterable[str]]


def _text(data: bytes) -> Parts:
    try:
        # UTF-32 in little endian begins like UTF-16; text has no zero in its first character.
        wide = "utf-32" if b"\0\0" in data[:4] else "utf-16"
        text = data.decode(wide if data.startswith(WIDE_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        found = from_bytes(data[:_EXAMINED]).best()
        text = data.decode(found.encoding if found else _COMMON, "replace")
    return "", 1, [text]


def _pdf(data: bytes) -> Parts:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    try:
        reader = PdfReader(BytesIO(data))
        # Many documents are encrypted with an empty password, which only forbids to print.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable(Problem.PROTECTED)
        total = len(reader.pages)
    except DependencyError as error:  # AES
        raise Unreadable(Problem.PROTECTED) from error
    return "page", total, (page.extract_text() for page in reader.pages)


def _docx(data: bytes) -> Parts:
    package = ZipFile(BytesIO(data))
    names = sorted(filter(_DOCUMENT.fullmatch, package.namelist()))
    return "", 1, ["\n".join(_words(package.open(name)) for name in names)]


def _pptx(data: bytes) -> Parts:
    from defusedxml.ElementTree import fromstring

    package = ZipFile(BytesIO(data))
    relations = fromstring(package.read(_RELATIONS), forbid_dtd=True)
    targets = {one.get("Id"): posixpath.join("/ppt", one.get("Target", "")) for one in relations}
    # The order of the slides is kept here only.
    slides = fromstring(package.read(_PRESENTATION), forbid_dtd=True).findall(".//{*}sldId")
    ids = [value for one in slides for name, value in one.items() if name.endswith("}id")]
    texts = (_words(package.open(posixpath.normpath(targets[one])[1:])) for one in ids)
    return "slide", len(ids), texts


def _words(file: IO[bytes]) -> str:
    """Return the text of a document or a slide, whose elements have the same names."""
    from defusedxml.ElementTree import iterparse

    pieces: list[str] = []
    # How deep the element is, also in cells, and in copies for old programs.
    depth = cells = copies = size = 0
    for event, element in iterparse(file, ("start", "end"), forbid_dtd=True):
        tag = element.tag.rpartition("}")[2]
        step = 1 if event == "start" else -1
        depth += step
        if depth > _DEEPEST:
            raise Unreadable(Problem.DAMAGED)
        cells += step * (tag == "tc")
        copies += step * (tag == "Fallback")
        if event == "start" or copies:
            continue
        space = " " if cells and tag == "p" else _ENDS.get(tag, "")
        pieces.append(element.text or "" if tag == "t" else space)
        size += len(pieces[-1])
        if size > MOST_CHARACTERS:
            break
        element.clear()
    return "".join(pieces)


def _xlsx(data: bytes) -> Parts:
    import_module("defusedxml")  # without it, openpyxl reads entities
    from openpyxl import load_workbook

    sheets = load_workbook(BytesIO(data), read_only=True, data_only=True).worksheets
    texts = ("\n".join([one.title, *_rows(one.iter_rows(values_only=True))]) for one in sheets)
    return "sheet", len(sheets), texts


def _rows(rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    size = 0
    for row in rows:
        cells = row if len(row) <= _MOST_COLUMNS else filter(None, row)
        if line := "\t".join("" if cell is None else str(cell) for cell in cells).rstrip():
            yield line
        size += len(line)
        if size > MOST_CHARACTERS:
            return


READERS: Mapping[Kind, Callable[[bytes], Parts]]
READERS = {"text": _text, "pdf": _pdf, "docx": _docx, "pptx": _pptx, "xlsx": _xlsx}
