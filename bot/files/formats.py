"""Recognises the kind of a file by its content, and reads its parts."""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from bot.files.problem import Problem

if TYPE_CHECKING:
    from pypdf import PageObject

MOST_CHARACTERS = 400_000  # of a file; of a part, little more is made
# The container of old and of encrypted documents ([MS-CFB] 2.2), and an entry of the latter.
_COMPOUND, _ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "EncryptedPackage".encode("utf-16-le")
_MOST_UNPACKED = 64_000_000  # bytes
# What text in Unicode may begin with; UTF-32 in little endian begins like UTF-16.
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_EXAMINED = 50_000  # bytes from which it is found out whether a file is text
# In no text, like what cannot be decoded; escape is in colours.
_CONTROLS = dict.fromkeys({*range(32), 0xFFFD} - {*range(7, 14), 27})
_MOST_CONTROLS = 0.02  # of a text
_ASCII = bytes(range(128))
_GUESSED, _BEFORE = 2_400, 100  # bytes for a guess; of more, the library would see pieces only
_COMMON = "cp1252"  # what most files without Unicode have, if these are too few bytes to tell
_TOO_FEW = 10
# Of web pages: where their charset stands, and what is no part of their text.
_CHARSET = re.compile(rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_HEAD = 2_048  # bytes
_NOT_SHOWN = (
    "head, title, script, style, template, noscript, svg, iframe, nav, footer, button, select, "
    "[hidden]"
)
_DOCUMENT = re.compile(r"word/(document\d*|endnotes|footnotes)\.xml")
_PRESENTATION, _RELATIONS = "ppt/presentation.xml", "ppt/_rels/presentation.xml.rels"
# What the end of an element of documents and slides stands for; a cell's paragraphs are on a line.
_ENDS = {"p": "\n", "tr": "\n", "br": "\n", "cr": "\n", "tab": "\t", "tc": "\t"}
_DEEPEST = 1_000  # elements within each other; a million take ten seconds
_GAP, _NARROW_GAP = 300, 150  # between words of PDF, in thousandths of the font's size
_MOST_COLUMNS = 256  # of a row; of a wider one only the cells that are not empty are shown

# The `unit` and `total` of FileText, and the texts, each made when it is asked for.
Parts = tuple[str, int, Iterable[str]]


class Unreadable(Exception):
    """A file cannot be read; its `args` are one Problem."""


def parts_of(data: bytes, *, html: str | None = None) -> Parts:
    """Return the parts of a file; with `html`, the charset of a web page, text is that of a page.

    Raises Unreadable, ImportError if a package is not installed, and whatever its library raises.
    """
    if data.startswith(b"%PDF-"):
        return _pdf(data)
    if data.startswith(b"PK\3\4"):
        package = ZipFile(BytesIO(data))
        # `zipfile` reads no more of an entry than is declared here.
        if sum(entry.file_size for entry in package.infolist()) > _MOST_UNPACKED:
            raise Unreadable(Problem.UNPACKED)
        folders = {name.partition("/")[0] for name in package.namelist()}
        if "word" in folders:
            return _docx(package)
        if "ppt" in folders:
            return _pptx(package)
        if "xl" in folders:
            return _xlsx(data)
    if data.startswith(_COMPOUND) and _ENCRYPTED in data:
        raise Unreadable(Problem.PROTECTED)
    encoding = _told(data[:_EXAMINED])
    start = data[:_EXAMINED].decode(encoding or "latin-1", "replace")
    controls = len(start) - len(start.translate(_CONTROLS))
    if "\0" not in start and controls <= len(start) * _MOST_CONTROLS:
        if html is not None:
            return "html", 2, _page(data, encoding or html)
        return "", 1, [data.decode(encoding, "replace") if encoding else _text(data)]
    # Readers of PDF search for the mark in the first kilobyte; a text may speak of it there.
    if b"%PDF-" in data[:1024]:
        return _pdf(data)
    raise Unreadable(Problem.UNKNOWN)


def _told(start: bytes) -> str:
    """Return the encoding of which a mark or zero bytes tell; empty if none do."""
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    # In UTF-16, half of each Latin letter, space and end of a line is zero, always the same half.
    even, odd = start[::2].count(0), start[1::2].count(0)
    if 20 * max(even, odd) < len(start) or 10 * min(even, odd) > max(even, odd):
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _text(data: bytes) -> str:
    """Return text whose encoding is not told."""
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd") - data.count("\ufffd".encode())
    whole = len(text) - broken - (len(data) - len(data.translate(None, _ASCII)))
    # Text in another encoding has hardly a letter that is whole in UTF-8.
    if 2 * broken <= whole:
        return text
    first = len(data) - len(data.lstrip(_ASCII))
    near = data[first : first + _GUESSED]
    if len(near) == _GUESSED:
        # Its last letter may be cut, the end of a line is not.
        near = near.rpartition(b"\n")[0] or near
    return data.decode(_guessed(data[max(first - _BEFORE, 0) : first] + near), "replace")


def _page(data: bytes, charset: str) -> Iterator[str]:
    """Yield the title of a web page, and its text in Markdown without links."""
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    page = BeautifulSoup(_decoded(data, charset), "html.parser")
    yield page.title.get_text() if page.title else ""
    for one in page.select(_NOT_SHOWN):
        one.decompose()
    yield MarkdownConverter(
        heading_style=ATX,
        strip=["a", "img"],
        escape_asterisks=False,
        escape_underscores=False,
    ).convert_soup(page)


def _decoded(data: bytes, charset: str) -> str:
    """Return a page, in the charset of its head if none was told."""
    found = _CHARSET.search(data[:_HEAD])
    charset = charset or (found[1].decode() if found else "")
    try:
        name = codecs.lookup(charset).name
        # Browsers read these so, too (WHATWG, Encoding, 4.2).
        return data.decode(_COMMON if name in ("ascii", "iso8859-1") else name, "replace")
    except (LookupError, UnicodeError):
        return _text(data)


def _guessed(text: bytes) -> str:
    """Return the encoding of text that is not in Unicode."""
    if len(text.translate(None, _ASCII)) < _TOO_FEW:
        return _COMMON
    from charset_normalizer import from_bytes

    found = from_bytes(text)
    fits = {it: (one.chaos, one.coherence) for one in found for it in one.could_be_from_charset}
    best = next(iter(fits), _COMMON)
    # The library orders what fits equally by name.
    return _COMMON if fits.get(_COMMON) == fits.get(best) else best


def _pdf(data: bytes) -> Parts:
    import_module("cryptography")  # without it, pypdf takes what AES encrypts for damaged
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    # Many documents are encrypted with an empty password, which only forbids to print.
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable(Problem.PROTECTED)
    return "page", len(reader.pages), map(_page_text, reader.pages)


def _page_text(page: PageObject) -> str:
    """Return the text of a page.

    For some fonts pypdf 7.1 takes the width of another glyph for that of a space, and then joins
    the words of narrow lines. So it is shown their gaps as wide ones, from which a step leads back.
    """
    from pypdf.generic import FloatObject

    def widen(operator: bytes, operands: list[Any], *_: object) -> None:
        if operator == b"TJ":
            for at, offset in reversed([*enumerate(operands[0])]):
                if isinstance(offset, float | int) and -_GAP < offset <= -_NARROW_GAP:
                    operands[0][at : at + 1] = FloatObject(-_GAP), FloatObject(offset + _GAP)

    return page.extract_text(visitor_operand_before=widen)


def _docx(package: ZipFile) -> Parts:
    names = sorted(filter(_DOCUMENT.fullmatch, package.namelist()))
    return "", 1, ["\n".join(_words(package.open(name)) for name in names)]


def _pptx(package: ZipFile) -> Parts:
    from defusedxml.ElementTree import fromstring

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
        cells = ["" if cell is None else str(cell) for cell in row]
        if line := "\t".join(cells if len(row) <= _MOST_COLUMNS else filter(None, cells)).rstrip():
            yield line
        size += len(line)
        if size > MOST_CHARACTERS:
            return
