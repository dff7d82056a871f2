"""Recognises what kind a file is by its content, and says why one cannot be read."""

from __future__ import annotations

import re
from enum import Enum
from io import BytesIO
from typing import Literal
from zipfile import ZipFile

from bot.domain import FileText

Kind = Literal["text", "pdf", "docx", "pptx", "xlsx"]

_PICTURES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.DOTALL),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
_MOST_UNPACKED = 64_000_000  # bytes
_FOLDERS: dict[str, Kind] = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}  # in the package
# The container of old and of encrypted documents ([MS-CFB] 2.2), and an entry of the latter.
_COMPOUND, _ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "EncryptedPackage".encode("utf-16-le")
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, and with two zero bytes of UTF-32
_EXAMINED = 65_536  # bytes at the beginning
_MOST_CONTROLS = 0.02  # of text; bell to carriage return, and escape for colours, are none
_CONTROLS = bytes({*range(32)} - {*range(7, 14), 27})


class Problem(Enum):
    """Why nothing was read, as a sentence for people; `{names}` are those of the files."""

    LARGE = "I have not read {names}: {most} MB is the limit."
    UNPACKED = "I have not read {names}: 64 MB of unpacked data is the limit."
    PICTURE = "I cannot see pictures, so I have not looked at {names}."
    BIG_PICTURE = "I have not looked at {names}: a picture may have 4 MB and 25 megapixels."
    MANY_PICTURES = "I have not looked at {names}: I am looking at too many pictures just now."
    NOT_TAKEN = "My model does not accept {names}, so I have answered without."
    UNKNOWN = "I cannot read {names}: I read text, PDF, DOCX, PPTX and XLSX."
    PROTECTED = "I cannot read {names}: encrypted."
    DAMAGED = "I cannot read {names}: damaged."
    EMPTY = "I have found no text in {names}."
    SLOW = "I have not read {names}: that takes too long."
    HEAVY = "I have not read {names}: that takes too much memory."
    MISSING = "I cannot read {names} here: the packages in requirements-files.txt are missing."
    MANY = "I have not read {names}: {most} files at once is the limit."
    GONE = "I cannot find {names} any more."
    REFUSED = "I may not open {names}."
    UNREACHABLE = "I could not fetch {names}."


# These say nothing of the file itself: the next attempt may read it.
_PASSING = {
    Problem.MISSING.value,
    Problem.GONE.value,
    Problem.REFUSED.value,
    Problem.UNREACHABLE.value,
    Problem.MANY_PICTURES.value,
}


def is_final(file: FileText) -> bool:
    """Return whether another attempt would read the same of a file."""
    return file.problem not in _PASSING


class Unreadable(Exception):
    """A file cannot be read; its `args` are one Problem."""


def picture_type(data: bytes | bytearray) -> str:
    """Return the media type of a picture that models see, by its first bytes; else ""."""
    return next((kind for kind, mark in _PICTURES.items() if mark.match(data)), "")


def kind_of(data: bytes, *, suffix: str) -> Kind:
    """Return the kind of a file. Raises Unreadable if it is of none, BadZipFile if damaged."""
    start = data[:_EXAMINED]
    # Readers search for the header in the first kilobyte; a text may speak of it there.
    if start.startswith(b"%PDF-") or (suffix.lower() == ".pdf" and b"%PDF-" in start[:1024]):
        return "pdf"
    if start.startswith(b"PK\3\4"):
        entries = ZipFile(BytesIO(data)).infolist()
        # `zipfile` reads no more of an entry than is declared here.
        if sum(entry.file_size for entry in entries) > _MOST_UNPACKED:
            raise Unreadable(Problem.UNPACKED)
        for folder, kind in _FOLDERS.items():
            if any(entry.filename.startswith(folder) for entry in entries):
                return kind
    if start.startswith(_COMPOUND) and _ENCRYPTED in data:
        raise Unreadable(Problem.PROTECTED)
    controls = len(start) - len(start.translate(None, _CONTROLS))
    is_text = b"\0" not in start and controls <= len(start) * _MOST_CONTROLS
    if is_text or start.startswith(WIDE_MARKS):
        return "text"
    raise Unreadable(Problem.UNKNOWN)
