"""What the header of a GGUF file says of the model in it, before anything is loaded.

The layout is that of ggml's docs/gguf.md, versions 2 and 3, which xllamacpp 2026.10 reads too.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_VERSIONS = (2, 3)
# The numbers among the value types, as `struct` calls them; a bool is one byte.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
_KEPT_BYTES = 2  # of a key or a value in the context's memory: half precision, llama.cpp's default
_STEP = 256  # tokens, to whose multiple llama.cpp rounds a context up
# What is kept of a header, which may have any size: a list has a number for each layer, while those
# of a vocabulary are passed over, and a chat template has some 10,000 characters.
_MOST_NUMBERS = 10_000
_LONGEST_TEXT = 1_000_000  # bytes
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_INCOMPLETE = "is damaged or was not downloaded to its end: download it again"

_Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Gguf:
    """A chat model in a GGUF file, its parts together.

    `layers` are counted as llama.cpp counts those for a GPU: the output is one of them.
    `token_bytes` is what a token of context takes; at most, where it is not `exact`.
    """

    architecture: str
    layers: int
    trained_tokens: int
    file_bytes: int
    token_bytes: int
    exact: bool

    def slot_tokens(self, asked: int) -> int:
        """Return the context of one conversation, for a model has no more than it was trained."""
        return min(asked, self.trained_tokens) if self.trained_tokens else asked

    def context_bytes(self, *, tokens: int, parallel: int) -> int:
        """Return the memory for the contexts of `parallel` conversations."""
        return -(-tokens // _STEP) * _STEP * parallel * self.token_bytes


def read(path: Path) -> Gguf:
    """Read the header. ValueError, with a sentence's end, when no chat model can be in the file."""
    with _header(path) as header:
        facts = dict(header.facts())
    _check(facts)
    architecture = str(facts.get("general.architecture", ""))
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in facts.items()
        if key.startswith(f"{architecture}.")
    }
    return Gguf(
        architecture=architecture,
        layers=_number(own, "block_count") + 1,
        trained_tokens=_number(own, "context_length"),
        file_bytes=sum(part.stat().st_size for part in _parts(path) if part.exists()),
        token_bytes=_token_bytes(own),
        # Windows, states and compressed keys take less memory than whole layers of it.
        exact=not any("sliding_window" in key or "ssm" in key or "lora" in key for key in own),
    )


def _check(facts: _Facts) -> None:
    kind = facts.get("general.type", "model")
    if kind != "model" or facts.get("general.architecture") == "clip":
        raise ValueError("is no whole model but a part or an addition (an adapter, an mmproj)")
    architecture = facts.get("general.architecture")
    causal = facts.get(f"{architecture}.attention.causal", True)
    if not causal or facts.get(f"{architecture}.pooling_type"):
        raise ValueError("is a model for embeddings or rankings, which cannot answer")
    if not facts.get("tokenizer.chat_template"):
        raise ValueError(
            "has no chat template, so it is no chat model:"
            " take one that was made for chats (its name mostly says Instruct or Chat)"
        )


def _token_bytes(own: _Facts) -> int:
    layers = _number(own, "block_count")
    heads = own.get("attention.head_count_kv") or own.get("attention.head_count") or 0
    # A list where the layers differ.
    in_all = sum(map(_whole, heads)) if isinstance(heads, list) else _whole(heads) * layers
    usual = _number(own, "embedding_length") // max(_number(own, "attention.head_count"), 1)
    size = sum(_number(own, f"attention.{each}_length") or usual for each in ("key", "value"))
    return in_all * size * _KEPT_BYTES


def _number(own: _Facts, key: str) -> int:
    value = own.get(key)
    return max(map(_whole, value), default=0) if isinstance(value, list) else _whole(value)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _parts(path: Path) -> list[Path]:
    found = _PART.search(path.name)
    if not found:
        return [path]
    name, count = path.name[: found.start()], int(found[2])
    return [path.with_name(f"{name}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]


@contextmanager
def _header(path: Path) -> Iterator[_Header]:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("is not a GGUF file")
        # Mapped and not read: the words of a large vocabulary are passed over.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                yield _Header(data)
            except (struct.error, MemoryError, OverflowError, RecursionError) as error:
                raise ValueError(_INCOMPLETE) from error


class _Header:
    """Reads on from where it stands; `struct.error` where the file ends too soon."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def facts(self) -> Iterator[tuple[str, object]]:
        version, _tensors, count = self._take("I"), self._take("Q"), self._take("Q")
        if version not in _VERSIONS:
            raise ValueError(
                f"is a GGUF file of version {version}, where 2 and 3 can be read:"
                " look for another file of this model, or a newer Parley"
            )
        for _ in range(count):
            yield self._text(), self._value(self._take("I"))

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(self._take("I"), self._take("Q"))
        if kind not in _NUMBERS:
            raise ValueError(_INCOMPLETE)
        return self._take(_NUMBERS[kind])

    def _array(self, kind: int, count: int) -> object:
        if kind in _NUMBERS:
            size = struct.calcsize(f"<{_NUMBERS[kind]}")
            if count > _MOST_NUMBERS:
                self._pass(count * size)
                return None
            return list(struct.unpack(f"<{count}{_NUMBERS[kind]}", self._raw(count * size)))
        for _ in range(count):
            # Of words nothing is kept.
            self._pass(self._take("Q")) if kind == _STRING else self._value(kind)
        return None

    def _text(self) -> str:
        size = self._take("Q")
        raw = self._raw(min(size, _LONGEST_TEXT))
        self._pass(size - len(raw))
        return raw.decode(errors="replace")

    def _take(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self._raw(struct.calcsize(f"<{code}")))[0]
        return value

    def _raw(self, size: int) -> bytes:
        raw = self._data[self._at : self._at + size]
        if len(raw) < size:
            raise struct.error("the file ends here")
        self._at += size
        return raw

    def _pass(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise struct.error("the file ends here")
        self._at += size
