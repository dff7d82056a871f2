"""Small writers of the kinds of pictures that people send."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int) -> bytes:
    """Return a picture of one colour, whole if it is small; a large one has no rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * width) * height) if width * height < 10**7 else b""
    chunks = (chunk(b"IHDR", size), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


def jpeg(width: int, height: int, *, frame: int = 0xC0) -> bytes:
    """Return a header with a comment before the frame."""
    head = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(10) + b"\xff\xfe\0\4ab"
    return head + struct.pack(">BBHBHH", 0xFF, frame, 17, 8, height, width) + bytes(20)


def webp(width: int, height: int, kind: str) -> bytes:
    bodies = {
        "VP8 ": b"\0\0\0\x9d\1\x2a" + struct.pack("<HH", width, height),
        "VP8L": b"\x2f" + struct.pack("<I", width - 1 | (height - 1) << 14),
        "VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
    }
    body = bodies.get(kind, bytes(20))
    head = kind.encode() + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(head)) + b"WEBP" + head
