"""What a GGUF file's header tells, in files made for it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.local import gguf

CHAT: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.context_length": 2048,
    "llama.embedding_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b"],
    "tokenizer.chat_template": "{{ messages }}",
}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(it: object) -> bytes:
    match it:
        case bool():
            return struct.pack("<I?", 7, it)
        case int():
            return struct.pack("<Ii", 5, it) if it < 0 else struct.pack("<II", 4, it)
        case str():
            return struct.pack("<I", 8) + text(it)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(it)) + b"".join(text(str(each)) for each in it)
        case list():
            return struct.pack(f"<IIQ{len(it)}I", 9, 4, len(it), *it)
    raise AssertionError(it)


def written(path: Path, facts: Mapping[str, object], *, version: int = 3) -> Path:
    """Write a header without tensors (docs/gguf.md of ggml)."""
    head = b"GGUF" + struct.pack("<IQQ", version, 0, len(facts))
    path.write_bytes(head + b"".join(text(key) + value(it) for key, it in facts.items()))
    return path


def read(folder: Path, **changes: object) -> gguf.Gguf:
    renamed = {key.replace("__", "."): it for key, it in changes.items()}
    return gguf.read(written(folder / "model.gguf", CHAT | renamed))


def test_a_token_of_context_takes_a_key_and_a_value_in_each_layer(tmp_path: Path) -> None:
    model = read(tmp_path)

    # 4 layers, 2 heads, 512 / 8 numbers each, of 2 bytes, twice.
    assert model.token_bytes == 4 * 2 * 64 * 2 * 2
    assert model.exact
    assert (model.layers, model.architecture) == (5, "llama")


def test_contexts_are_rounded_up_as_llama_cpp_does(tmp_path: Path) -> None:
    model = read(tmp_path)

    assert model.context_bytes(tokens=500, parallel=3) == 512 * 3 * model.token_bytes


def test_a_conversation_has_no_more_context_than_the_model(tmp_path: Path) -> None:
    model = read(tmp_path)

    assert (model.slot_tokens(1000), model.slot_tokens(9000)) == (1000, 2048)


def test_heads_may_differ_in_size_and_from_layer_to_layer(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        llama__attention__head_count_kv=[0, 2, 0, 1],
        llama__attention__key_length=100,
        llama__attention__value_length=50,
    )

    assert model.token_bytes == 3 * 150 * 2


def test_a_number_below_zero_is_none(tmp_path: Path) -> None:
    model = read(tmp_path, llama__block_count=-1, llama__context_length=-5)

    assert (model.layers, model.trained_tokens, model.token_bytes) == (1, 0, 0)


def test_of_what_is_long_only_what_counts_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", CHAT | {"a.scores": [7] * 1_000_000, "b": "x" * 10**7})
    tracemalloc.start()
    try:
        model = gguf.read(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert model.layers == 5
    assert most < 5_000_000


def test_windows_are_known_to_take_less(tmp_path: Path) -> None:
    assert not read(tmp_path, llama__attention__sliding_window=1024).exact


def test_the_parts_of_a_model_count_together(tmp_path: Path) -> None:
    first = written(tmp_path / "big-00001-of-00002.gguf", CHAT)
    (tmp_path / "big-00002-of-00002.gguf").write_bytes(bytes(1000))

    assert gguf.read(first).file_bytes == first.stat().st_size + 1000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokenizer.chat_template": ""}, "no chat template"),
        ({"llama.pooling_type": 1}, "a model for embeddings"),
        ({"llama.attention.causal": False}, "a model for embeddings"),
        ({"general.type": "adapter"}, "no whole model"),
        ({"general.architecture": "clip"}, "no whole model"),
    ],
)
def test_what_cannot_answer_is_told(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        gguf.read(written(tmp_path / "model.gguf", CHAT | changes))


def test_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of version 9"):
        gguf.read(written(tmp_path / "model.gguf", CHAT, version=9))


def test_wherever_the_file_ends_too_soon_it_is_to_be_downloaded_again(tmp_path: Path) -> None:
    whole = written(tmp_path / "model.gguf", CHAT).read_bytes()
    for size in range(4, len(whole)):
        (tmp_path / "model.gguf").write_bytes(whole[:size])

        with pytest.raises(ValueError, match="download it again"):
            gguf.read(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<I", 99),  # no type
        struct.pack("<IIQ", 9, 4, 2**62),  # a list longer than the file
        struct.pack("<IIQ", 9, 9, 2) * 2000,  # lists of lists of lists
        struct.pack("<IQ", 8, 2**63),  # a text longer than the file
    ],
)
def test_nonsense_is_told_like_damage(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("key") + raw)

    with pytest.raises(ValueError, match="download it again"):
        gguf.read(path)
