"""The headers of GGUF files that are made for these tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.local import gguf

CHAT: dict[str, object] = {
    "general.architecture": "llama",
    "llama.context_length": 2048,
    "llama.block_types": [1, 2, 3],
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.chat_template": "{{ messages }}",
}


def pack_string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def pack_value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<Ii", 5, value) if value < 0 else struct.pack("<II", 4, value)
        case str():
            return struct.pack("<I", 8) + pack_string(value)
        case [str(), *_]:
            items = b"".join(pack_string(str(each)) for each in value)
            return struct.pack("<IIQ", 9, 8, len(value)) + items
        case list():
            return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    raise AssertionError(value)


def write_header(folder: Path, *, version: int = 3, changes: Mapping[str, object] = CHAT) -> Path:
    """Write a file without tensors (docs/gguf.md of ggml)."""
    fields = {**CHAT, **changes}
    path = folder / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", version, 0, len(fields))
    path.write_bytes(
        head + b"".join(pack_string(name) + pack_value(it) for name, it in fields.items())
    )
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_a_chat_model_has_the_context_that_its_file_reports(version: int, tmp_path: Path) -> None:
    path = write_header(tmp_path, version=version)

    assert gguf.read_context_size(path) == 2048


@pytest.mark.parametrize("length", [-5, 0, [2048, 4096], "many"])
def test_a_context_that_is_no_number_is_unknown(length: object, tmp_path: Path) -> None:
    path = write_header(tmp_path, changes={"llama.context_length": length})

    assert gguf.read_context_size(path) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokenizer.chat_template": ""}, "no chat template"),
        ({"llama.pooling_type": 1}, "a model for embeddings"),
        ({"llama.attention.causal": False}, "a model for embeddings"),
        ({"general.type": "adapter"}, "not a whole model"),
        ({"general.architecture": "clip"}, "not a whole model"),
    ],
)
def test_a_file_without_a_chat_model_is_refused(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    path = write_header(tmp_path, changes=changes)

    with pytest.raises(ValueError, match=sentence):
        gguf.read_context_size(path)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of version 9"):
        gguf.read_context_size(write_header(tmp_path, version=9))


def test_a_header_that_ends_too_soon_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = write_header(tmp_path)
    whole = path.read_bytes()
    for size in range(4, len(whole)):
        path.write_bytes(whole[:size])

        with pytest.raises(ValueError, match="download it again"):
            gguf.read_context_size(path)


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<I", 99),  # no type
        struct.pack("<IIQ", 9, 4, 2**62),  # an array longer than the file
        struct.pack("<IIQ", 9, 9, 2) * 2000,  # arrays of arrays of arrays
        struct.pack("<IQ", 8, 2**63),  # a string longer than the file
    ],
)
def test_nonsense_is_refused_like_damage(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pack_string("key") + raw)

    with pytest.raises(ValueError, match="download it again"):
        gguf.read_context_size(path)
