"""Checks by the header of a GGUF file, before it is loaded, that it holds a chat model.

The layout is that of ggml's docs/gguf.md, versions 2 and 3, which xllamacpp 2026.10 also reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

# The struct codes of the numeric value types; a bool is one byte.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


def read_context_size(path: Path) -> int | None:
    """Return a chat model's context in tokens, if reported. Raises ValueError for another file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("is not a GGUF file")
        try:
            if (version := _number(file, "I")) in (2, 3):
                fields = dict(_fields(file))
        except (
            struct.error,
            ValueError,
            KeyError,
            OverflowError,
            MemoryError,
            RecursionError,
        ) as error:
            text = "is damaged or was not downloaded to its end: download it again"
            raise ValueError(text) from error
    if version not in (2, 3):
        raise ValueError(
            f"is a GGUF file of version {version}, but only 2 and 3 can be read:"
            " look for another file of this model, or a newer Parley"
        )
    _check(fields)
    size = fields.get(f"{fields.get('general.architecture')}.context_length")
    return size if isinstance(size, int) and size > 0 else None


def _check(fields: Mapping[str, object]) -> None:
    architecture = fields.get("general.architecture")
    if fields.get("general.type", "model") != "model" or architecture == "clip":
        raise ValueError("is not a whole model but a part or an addition (an adapter, an mmproj)")
    causal = fields.get(f"{architecture}.attention.causal", True)
    if not causal or fields.get(f"{architecture}.pooling_type"):
        raise ValueError("is a model for embeddings or rankings, which cannot answer")
    if not fields.get("tokenizer.chat_template"):
        raise ValueError(
            "has no chat template, so it is not a chat model:"
            " take one that was made for chats (its name mostly says Instruct or Chat)"
        )


def _fields(file: BinaryIO) -> Iterator[tuple[str, object]]:
    """Yield each key with its value; the values of arrays are skipped."""
    _tensors, count = _number(file, "Q"), _number(file, "Q")
    for _ in range(count):
        yield _text(file), _value(file, _number(file, "I"))
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise struct.error("the last array is not whole")


def _value(file: BinaryIO, kind: int) -> object:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _NUMBERS[kind])
    item, count = _number(file, "I"), _number(file, "Q")
    if item in _NUMBERS:
        file.seek(count * struct.calcsize(f"<{_NUMBERS[item]}"), os.SEEK_CUR)
    else:
        for _ in range(count):
            _value(file, item)
    return None


def _text(file: BinaryIO) -> str:
    size = _number(file, "Q")
    text: bytes = struct.unpack(f"{size}s", file.read(size))[0]
    return text.decode(errors="replace")


def _number(file: BinaryIO, code: str) -> int:
    """Read a number. Raises struct.error at the end of the file."""
    number: int = struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]
    return number
