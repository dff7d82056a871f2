"""Kinds and sizes of pictures, by headers that are made here; hostile ones end in a sentence."""

from __future__ import annotations

import struct

import pytest

from bot.files.pictures import read_picture
from bot.files.problem import Problem
from tests.support.pictures import gif, jpeg, png, webp

SIZED = {
    "png": (png(640, 480), "image/png"),
    "gif": (gif(640, 480), "image/gif"),
    "jpeg": (jpeg(640, 480), "image/jpeg"),
    "progressive jpeg": (jpeg(640, 480, frame=0xC2), "image/jpeg"),
    "jpeg with filling": (b"\xff\xd8" + b"\xff" * 9 + jpeg(640, 480)[3:], "image/jpeg"),
    "webp": (webp(640, 480, "VP8 "), "image/webp"),
    "lossless webp": (webp(640, 480, "VP8L"), "image/webp"),
    "animated webp": (webp(640, 480, "VP8X"), "image/webp"),
}


def problem_of(data: bytes) -> str:
    found = read_picture("cat.png", data)
    assert found
    assert not found.picture
    return found.problem


@pytest.mark.parametrize("kind", SIZED)
def test_a_picture_has_its_kind_and_its_size(kind: str) -> None:
    data, media_type = SIZED[kind]

    found = read_picture("cat.png", data)

    assert found
    assert found.picture
    picture = found.picture
    assert (picture.media_type, picture.width, picture.height) == (media_type, 640, 480)
    assert picture.data == data


@pytest.mark.parametrize("kind", SIZED)
def test_a_truncated_header_is_damaged_and_never_an_error(kind: str) -> None:
    data, _ = SIZED[kind]
    whole = 30 if kind != "jpeg with filling" else len(data)

    for length in range(16, whole):
        found = read_picture("cat.png", data[:length])
        assert found
        assert found.picture or found.problem == Problem.DAMAGED


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (25_000, 1_001), (2**32 - 1, 2**32 - 1)]
)
def test_more_than_25_megapixels_are_refused(width: int, height: int) -> None:
    assert problem_of(png(width, height)) == Problem.BIG_PICTURE


def test_more_than_4_mb_are_refused() -> None:
    assert problem_of(png(1, 1) + bytes(4_000_000)) == Problem.BIG_PICTURE


@pytest.mark.parametrize(
    "data",
    [
        png(0, 480),
        png(640, 0),
        gif(0, 0),
        jpeg(640, 0),  # its height would stand behind the scan
        webp(640, 480, "ALPH"),
        b"\xff\xd8\xff\xe0\0\0" + jpeg(640, 480)[2:],
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\xff\xda\0\2" + bytes(100),
    ],
)
def test_a_picture_without_a_size_is_damaged(data: bytes) -> None:
    assert problem_of(data) == Problem.DAMAGED


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"GIF8", b"<svg/>", b"RIFF\0\0\0\0WAVE", b"BM" + bytes(60)),
        png(640, 480).replace(b"IHDR", b"IDAT"),
    ],
)
def test_what_models_do_not_take_is_no_picture(data: bytes) -> None:
    assert read_picture("cat.png", data) is None


def test_a_million_segments_are_not_walked() -> None:
    data = b"\xff\xd8" + b"\xff\xfe\0\2" * 900_000 + jpeg(640, 480)[2:]

    assert problem_of(data) == Problem.DAMAGED


def test_many_segments_before_the_size_are_read() -> None:
    profile = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)

    found = read_picture("cat.jpg", b"\xff\xd8" + profile * 60 + jpeg(640, 480)[2:])

    assert found
    assert found.picture
    assert (found.picture.width, found.picture.height) == (640, 480)
