"""Reads the kind and the size of a picture from its header; nothing is decoded."""

from __future__ import annotations

import re
import struct
from contextlib import suppress

from bot.domain import FileText, Picture
from bot.files.problem import Problem

_MOST_BYTES, _MOST_PIXELS = 4_000_000, 25_000_000
_TYPES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR", re.DOTALL),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
_MOST_SEGMENTS = 1_000  # of a JPEG before its size; cameras write some dozens
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # have its size (ITU-T T.81, table B.1)


def read_picture(name: str, data: bytes | bytearray) -> FileText | None:
    """Return a picture for models that see, or the problem with it; None if it is none."""
    media_type = next((kind for kind, mark in _TYPES.items() if mark.match(data)), "")
    if not media_type:
        return None
    width = height = 0
    with suppress(struct.error, IndexError):
        width, height = _size(media_type, data)
    if not width * height:
        return FileText(name, problem=Problem.DAMAGED)
    if is_too_large(len(data), width, height):
        return FileText(name, problem=Problem.BIG_PICTURE)
    return FileText(name, picture=Picture(media_type, width, height, bytes(data)))


def is_too_large(size: int, width: int, height: int) -> bool:
    """Whether a picture of so many bytes, and of this width and height, is not shown to models."""
    return size > _MOST_BYTES or width * height > _MOST_PIXELS


def _size(media_type: str, data: bytes | bytearray) -> tuple[int, ...]:
    match media_type, bytes(data[12:16]):
        case "image/png", _:
            return struct.unpack_from(">II", data, 16)
        case "image/gif", _:
            return struct.unpack_from("<HH", data, 6)
        case "image/jpeg", _:
            return _size_of_jpeg(data)
        # RFC 9649, sections 2.5 to 2.7, and RFC 6386, 9.1.
        case "image/webp", b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case "image/webp", b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case "image/webp", b"VP8X":
            low, high = struct.unpack_from("<IH", data, 24)
            return (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    return 0, 0


def _size_of_jpeg(data: bytes | bytearray) -> tuple[int, ...]:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker in _FRAMES:
            return struct.unpack_from(">HH", data, at + 5)[::-1]
        # Any number of these bytes may precede a marker.
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0, 0
