"""Checks by the header of a GGUF file, before it is loaded, that it holds a chat model.

The layout is that of ggml's docs/gguf.md, versions 2 and 3, which xllamacpp 2026.10 also reads.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# The struct codes of the numeric value types; a bool is one byte.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


def read_context_size(path: Path) -> int | None:
    """Return a chat model's context in tokens, if reported. Raises ValueError for another file."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("is not a GGUF file")
        # The vocabulary of a model may be large; of a mapped file only the accessed parts are read.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                fields = dict(_Header(data).fields())
            except (struct.error, KeyError, MemoryError, OverflowError, RecursionError) as error:
                text = "is damaged or was not downloaded to its end: download it again"
                raise ValueError(text) from error
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


@dataclass(slots=True)
class _Header:
    """Reads a header from its start. Raises struct.error at the end of the file."""

    _data: mmap.mmap
    _position: int = 4

    def fields(self) -> Iterator[tuple[str, object]]:
        """Yield each key with its value; the values of arrays are skipped."""
        version, _tensors, count = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise ValueError(
                f"is a GGUF file of version {version}, but only 2 and 3 can be read:"
                " look for another file of this model, or a newer Parley"
            )
        for _ in range(count):
            yield self._string(), self._value(self._number("I"))

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_NUMBERS[kind])
        item, count = self._number("I"), self._number("Q")
        if item in _NUMBERS:
            self._take(count * struct.calcsize(f"<{_NUMBERS[item]}"))
        else:
            for _ in range(count):
                self._value(item)
        return None

    def _string(self) -> str:
        start = self._take(self._number("Q"))
        return self._data[start : self._position].decode(errors="replace")

    def _number(self, code: str) -> int:
        start = self._take(struct.calcsize(f"<{code}"))
        number: int = struct.unpack_from(f"<{code}", self._data, start)[0]
        return number

    def _take(self, size: int) -> int:
        start = self._position  # before the bytes that are taken
        if size > len(self._data) - start:
            raise struct.error("unexpected end of file")
        self._position += size
        return start
