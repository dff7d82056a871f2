"""Small writers of the kinds of files that people send."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

from openpyxl import Workbook

from tests.support.pictures import png

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


PNG = png(1, 1)


def objects(*bodies: bytes, root: int = 1) -> bytes:
    """Return a PDF of numbered objects, the first of which is 1."""
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(bodies) + 1
    return out + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root %d 0 R>>\n"
        b"startxref\n%d\n%%%%EOF\n" % (size, table, size, root, len(out))
    )


def stream(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed)


def shown(text: str) -> bytes:
    """Return the content of a page of PDF that shows a line."""
    return b"BT /F 12 Tf 72 700 Td (%s) Tj ET" % text.encode("latin-1")


def pdf(contents: Sequence[bytes]) -> bytes:
    """Return a PDF with a page for each content."""
    pages = b" ".join(b"%d 0 R" % (4 + 2 * at) for at in range(len(contents)))
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (pages, len(contents)),
        font,
    ]
    for at, content in enumerate(contents):
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R" % (5 + 2 * at)
        bodies += [page + b"/Resources<</Font<</F 3 0 R>>>>>>", stream(content)]
    return objects(*bodies)


def package(entries: Mapping[str, str | bytes]) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(name, content)
    return file.getvalue()


def polyglot(start: bytes, packed: bytes) -> bytes:
    """Return a file that is a whole package, too, behind its start."""
    file = BytesIO(start)
    with ZipFile(file, "a") as both, ZipFile(BytesIO(packed)) as old:
        for name in old.namelist():
            both.writestr(name, old.read(name))
    return file.getvalue()


def docx(body: str, *, before: str = "", **parts: str) -> bytes:
    """Return a DOCX with this XML in its body, and other parts of `word/`."""
    document = f"{before}<w:document {W}><w:body>{body}</w:body></w:document>"
    others = {f"word/{name}.xml": text for name, text in parts.items()}
    return package({"word/document.xml": document, **others})


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def pptx(slides: Mapping[int, str], order: Iterable[int]) -> bytes:
    """Return a PPTX whose slides, named by numbers, are shown in this order."""
    relations = "".join(
        f'<Relationship Id="r{number}" Target="slides/slide{number}.xml"/>' for number in slides
    )
    ids = "".join(f'<p:sldId id="{256 + at}" r:id="r{at}"/>' for at in order)
    main = (
        f'<p:presentation xmlns:p="p" xmlns:r="{R}"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>'
    )
    return package(
        {
            "ppt/presentation.xml": main,
            "ppt/_rels/presentation.xml.rels": f"<Relationships>{relations}</Relationships>",
        }
        | {
            f"ppt/slides/slide{number}.xml": f"<s {A}><a:p><a:r><a:t>{text}</a:t></a:r></a:p></s>"
            for number, text in slides.items()
        }
    )


def xlsx(**sheets: Sequence[Sequence[object]]) -> bytes:
    """Return an XLSX with these rows in its sheets."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    file = BytesIO()
    book.save(file)
    return file.getvalue()


def replaced(packed: bytes, name: str, content: str) -> bytes:
    """Return a package with other content in one of its entries."""
    with ZipFile(BytesIO(packed)) as old:
        entries: dict[str, str | bytes] = {one: old.read(one) for one in old.namelist()}
    return package(entries | {name: content})
