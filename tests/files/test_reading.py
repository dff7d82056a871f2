"""The text of files, read by real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from asyncio.subprocess import PIPE
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="reading needs requirements-files.txt")

from pypdf import PdfReader, PdfWriter

from bot.domain import FileText
from bot.files import reading
from bot.files.child import read
from bot.text.files import left_out_of
from tests.files.samples import (
    docx,
    objects,
    package,
    paragraph,
    pdf,
    polyglot,
    pptx,
    replaced,
    shown,
    xlsx,
)
from tests.support.process import ROOT, alive, children
from tests.support.waiting import until

NESTED = "".join(
    f'<!ENTITY {name} "{f"&{last};" * 10}">'
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ENTITIES = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{NESTED}]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY i SYSTEM "file:///etc/passwd">]>'
SHEET = "xl/worksheets/sheet1.xml"


async def read_file(name: str, data: bytes, *, seconds: float = 10.0) -> FileText:
    return await reading.read_file(name, data, most_mb=10, seconds=seconds)


async def test_each_page_of_a_pdf_is_a_part() -> None:
    found = await read_file("report.pdf", pdf([shown("One caf\xe9"), shown("Two")]))

    assert (found.text, found.unit, found.total) == ("One caf\xe9\fTwo", "page", 2)
    assert left_out_of([found]) == ""


def protected_pdf(algorithm: str, *, password: str = "") -> bytes:
    writer = PdfWriter(PdfReader(BytesIO(pdf([shown("secret")]))))
    writer.encrypt(password, owner_password="owner", algorithm=algorithm)
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
async def test_a_pdf_that_only_forbids_to_print_is_read(algorithm: str) -> None:
    found = await read_file("report.pdf", protected_pdf(algorithm))

    assert found.text == "secret"


async def test_narrow_gaps_between_words_are_seen() -> None:
    # TeX's fonts have a wide sign where others have the space.
    wide = b"/Encoding/WinAnsiEncoding/FirstChar 32/LastChar 32/Widths[600]"
    line = b"BT /F 12 Tf 72 700 Td [(One)-190(two)-40(three)] TJ ET"
    file = pdf([line]).replace(b"/Encoding/WinAnsiEncoding", wide)

    assert (await read_file("narrow.pdf", file)).text == "One twothree"


async def test_a_document_is_read_with_its_tables_and_notes() -> None:
    row = "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in ("Ann", "7"))
    body = (
        f"{paragraph('First')}<w:tbl><w:tr>{row}</w:tr></w:tbl>"
        "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:delText>gone</w:delText></w:r></w:p>"
    )
    notes = paragraph("A note").replace("<w:p>", '<w:p xmlns:w="x">')

    found = await read_file("letter.docx", docx(body, footnotes=notes))

    assert found.text == "First\nAnn \t7 \t\na\tb\n\nA note"


async def test_slides_are_read_in_the_order_in_which_they_are_shown() -> None:
    found = await read_file("talk.pptx", pptx({1: "End", 2: "Start"}, order=[2, 1]))

    assert (found.text, found.unit, found.total) == ("Start\fEnd", "slide", 2)


async def test_each_sheet_is_read_row_by_row() -> None:
    rows: list[list[object]] = [["Name", "Since"], [], ["Ann", date(2024, 2, 1)], [None, 0]]

    found = await read_file("people.xlsx", xlsx(People=rows, Empty=[]))

    assert found.text == "People\nName\tSince\nAnn\t2024-02-01 00:00:00\n\t0\fEmpty"
    assert (found.unit, found.total) == ("sheet", 2)


TEXT = "Привет, мир. Это длинный текст про погоду, лес и реку."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1251", "koi8-r"])
async def test_text_is_read_in_any_encoding(encoding: str) -> None:
    found = await read_file("notes.md", f"{TEXT}\r\n{TEXT}".encode(encoding))

    assert found.text == f"{TEXT}\n{TEXT}"


ROWS = "1;Smith;Main Street\n" * 3_000
UMLAUTS = f"{ROWS}2;Müller;Straße"
CYRILLIC = f"{ROWS}{TEXT}\n{TEXT}"
CHINESE = "今天天气很好。我们去公园散步。\n" * 3_000
SPANISH = (
    "El año próximo, después de un largo debate, los niños de la región tendrán más espacio. "
    "La alcaldesa recordó que las obras comenzarán en febrero, y el señor Núñez dará su opinión."
)
ENCODED = {
    "two letters behind 60 kB": (UMLAUTS.encode("cp1252"), UMLAUTS),
    "one long line": (UMLAUTS.replace("\n", " ").encode("cp1252"), UMLAUTS.replace("\n", " ")),
    "one letter": ("café".encode("cp1252"), "café"),
    "Spanish": (SPANISH.encode("cp1252"), SPANISH),
    "Cyrillic behind 60 kB": (CYRILLIC.encode("cp1251"), CYRILLIC),
    "two bytes a letter": (CHINESE.encode("gb18030"), CHINESE.strip()),
    "one broken byte at the end": (CYRILLIC.encode() + b"\xff", f"{CYRILLIC}\ufffd"),
    "half a letter at the start": (TEXT.encode()[1:], f"\ufffd{TEXT[1:]}"),
    "a broken byte behind a mark": (b"\xef\xbb\xbfa\xff" + ROWS.encode(), f"a\ufffd{ROWS}".strip()),
    "the sign for broken bytes": ("café \ufffd\ufffd".encode(), "café \ufffd\ufffd"),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), TEXT),
    "UTF-16 in big endian": (CYRILLIC.encode("utf-16-be"), CYRILLIC),
    "UTF-16 that is cut": (CYRILLIC.encode("utf-16")[:-1], f"{CYRILLIC[:-1]}\ufffd"),
    "UTF-32 in big endian": (b"\0\0\xfe\xff" + TEXT.encode("utf-32-be"), TEXT),
}


CELL = '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>far</t></is></c></row>'
FAR = replaced(
    xlsx(One=[["x"]]),
    SHEET,
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    f"<sheetData>{CELL}</sheetData></worksheet>",
)
POLYGLOT = polyglot(pdf([shown("a page")]), docx(paragraph("a paragraph")))


@pytest.mark.parametrize("kind", ENCODED)
async def test_text_is_read_wherever_its_letters_stand(kind: str) -> None:
    data, text = ENCODED[kind]

    assert (await read_file("data.csv", data)).text == text


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("report.pdf", b"only text", "only text"),
        ("notes.txt", pdf([shown("a page")]), "a page"),
        ("odd.pdf", b"\0junk\n" + pdf([shown("a page")]), "a page"),
        ("about.txt", b"A file begins with %PDF-1.7.", "A file begins with %PDF-1.7."),
        ("data.pdf", xlsx(One=[["x"]]), "One\nx"),
        ("both.docx", POLYGLOT, "a page"),
        ("log", b"\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
    ],
)
async def test_the_content_and_not_the_name_says_what_a_file_is(
    name: str, data: bytes, text: str
) -> None:
    assert (await read_file(name, data)).text == text


async def test_what_is_beyond_the_limits_is_told() -> None:
    pages = await read_file("long.pdf", pdf([shown("page")] * 81))
    text = await read_file("long.txt", b"abcd " * 100_000)

    assert left_out_of([pages]) == "I read the first 80 of 81 pages of `long.pdf`."
    assert left_out_of([text]) == "I read the first 400,000 characters of `long.txt`."


async def test_a_page_that_cannot_be_read_leaves_those_before_it() -> None:
    contents = [shown("page")] * 80
    contents[59] = b" " * 100_000_000

    found = await read_file("report.pdf", pdf(contents))

    assert found.text.count("page") == 59
    assert left_out_of([found]) == "I read the first 59 of 80 pages of `report.pdf`."


def lying() -> bytes:
    """A package whose entry is larger than it declares."""
    packed = bytearray(docx(paragraph("x" * 100_000)))
    for mark, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        start = packed.index(mark) + at
        packed[start : start + 4] = (200).to_bytes(4, "little")
    return bytes(packed)


def many_pages() -> bytes:
    kids = b"3 0 R " * 1_000_000
    return objects(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1000000/Kids[%s]>>" % kids,
        b"<</Type/Page/Parent 2 0 R>>",
    )


CYCLE = objects(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R]/Count 1>>")
HOSTILE = {
    "a bomb.docx": (docx(paragraph(" " * 70_000_000)), "64 MB of unpacked data"),
    "a bomb.xlsx": (replaced(xlsx(One=[]), SHEET, " " * 65_000_000), "64 MB of unpacked data"),
    "a bomb.pptx": (pptx({1: " " * 65_000_000}, order=[1]), "64 MB of unpacked data"),
    "a lie.docx": (lying(), "damaged"),
    "a depth.docx": (docx("<w:p>" * 1_000_000), ""),
    "an entity.docx": (docx("&i;", before=ENTITIES), "damaged"),
    "from outside.docx": (docx("<w:p><w:t>&i;</w:t></w:p>", before=OUTSIDE), "damaged"),
    "an entity.xlsx": (
        replaced(xlsx(One=[["x"]]), SHEET, f"{ENTITIES}<worksheet>&i;</worksheet>"),
        "damaged",
    ),
    "no slides.pptx": (package({"ppt/presentation.xml": "<a/>"}), "damaged"),
    "a slide elsewhere.pptx": (pptx({1: "x"}, order=[1, 9]), ""),
    "a cycle.pdf": (CYCLE, ""),
    "a bomb.pdf": (pdf([b" " * 300_000_000]), "damaged"),
    "many pages.pdf": (many_pages(), ""),
    "a depth.pdf": (objects(b"<</Type/Catalog/Pages " + b"[" * 1_000_000), "damaged"),
    "a half.pdf": (pdf([shown("page")] * 3)[:300], "damaged"),
    "a half.docx": (docx(paragraph("x" * 1000))[:200], "damaged"),
    "locked.pdf": (protected_pdf("AES-256", password="open sesame"), "encrypted"),
    "locked.xlsx": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
        "encrypted",
    ),
    "an archive.zip": (package({"a.txt": "x"}), "PDF, DOCX"),
    "a program.txt": (b"\x7fELF\2\1\1\0" + bytes(100), "PDF, DOCX"),
    "a hole.txt": (b"a line\n" * 99 + b"\0", "PDF, DOCX"),
    "numbers.csv": (struct.pack("<999I", *range(999)), "PDF, DOCX"),
    "samples.csv": (struct.pack("<999h", *range(-499, 500)), "PDF, DOCX"),
    "zeros behind a mark.txt": (b"\xff\xfe" + bytes(100), "PDF, DOCX"),
    "noise.csv": (bytes(range(1, 256)) * 100, "PDF, DOCX"),
    "nothing.txt": (b" \n", "no text"),
    "a scan.pdf": (pdf([b""]), "no text"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_file_ends_in_one_sentence(name: str) -> None:
    data, reason = HOSTILE[name]

    found = await read_file(name, data)

    sentence = left_out_of([found])
    assert name in sentence
    assert reason in sentence
    assert "\n" not in sentence
    assert "root:" not in found.text


async def test_a_cell_far_away_is_read_and_takes_no_room() -> None:
    found = await read_file("far.xlsx", FAR)

    assert found.text == "One\nfar"


async def test_a_file_that_takes_too_long_is_told() -> None:
    found = await read_file("slow.pdf", pdf([shown("x")]), seconds=0.01)

    assert left_out_of([found]) == "I have not read `slow.pdf`: that takes too long."


@pytest.mark.parametrize(
    "missing", ["pypdf", "cryptography", "openpyxl", "defusedxml", "charset_normalizer"]
)
def test_without_the_extra_a_sentence_names_what_is_missing(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (missing, "defusedxml.ElementTree"):
        monkeypatch.setitem(sys.modules, name, None)
    data = {
        "pypdf": pdf([shown("x")]),
        "cryptography": protected_pdf("AES-128"),
        "openpyxl": xlsx(One=[["x"]]),
        "defusedxml": docx(paragraph("x")),
        "charset_normalizer": TEXT.encode("koi8-r"),
    }

    assert [*read(data[missing])] == [["MISSING"]]
    assert ("text", False, "", 1) in [*read(b"text")]


def servers(*, parent: int | None = None) -> list[int]:
    return children("bot.files.fork_server", parent=parent)


async def test_a_fork_server_that_was_killed_is_replaced() -> None:
    await read_file("a.txt", b"text")
    (before,) = servers()
    os.kill(before, signal.SIGKILL)
    await until(lambda: not alive(before))

    found = await asyncio.gather(*(read_file("a.txt", b"text") for _ in range(5)))

    assert [one.text for one in found] == ["text"] * 5
    (after,) = servers()
    assert after != before


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
async def test_the_readers_have_an_empty_environment_and_leave_nothing_behind() -> None:
    await read_file("a.txt", b"text")
    (server,) = servers()

    assert not Path(f"/proc/{server}/environ").read_bytes()  # noqa: ASYNC240
    await until(lambda: not servers(parent=server))


READS = """
import asyncio, sys
from bot.files.reading import read_file
asyncio.run(read_file("a.txt", b"text", most_mb=1))
print("read", flush=True)
sys.stdin.read()
"""


async def test_the_fork_server_ends_with_the_process_that_started_it() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READS, stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert process.stdout
    assert await process.stdout.readline() == b"read\n"
    (server,) = servers(parent=process.pid)

    process.kill()
    await process.communicate()

    await until(lambda: not alive(server))


# What code in a hostile file would try, as far as Python is asked for it.
ATTEMPTS = """
import os, socket, subprocess
from bot.files import child

def attempts(data, html):
    tried = (lambda: socket.create_connection(("127.0.0.1", int(data))),
             lambda: open("/etc/passwd"), lambda: open("written", "w"),
             lambda: open("written.py", "w"), lambda: os.mkdir("made"),
             lambda: subprocess.run(["true"]), lambda: os.system("true"), os.fork)
    results = []
    for attempt in tried:
        try:
            attempt()
            results.append("done")
        except OSError:
            results.append("refused")
    return "", 1, [" ".join(results)]

child.parts_of = attempts
child.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_the_child_opens_no_connection_and_no_file_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS],
            input=f"\n{port}".encode(),
            capture_output=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            check=True,
        )

    assert f'"{" ".join(["refused"] * 8)}"'.encode() in done.stdout
    assert not [*tmp_path.iterdir()]


async def test_text_in_a_drawing_is_read_once() -> None:
    box = paragraph("box")
    drawing = f'<x xmlns="mc"><Choice>{box}</Choice><Fallback>{box}</Fallback></x>'

    found = await read_file("box.docx", docx(drawing))

    assert found.text == "box"
