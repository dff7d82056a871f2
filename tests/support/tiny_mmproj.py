"""A tiny mmproj file for the demo model: what it sees makes no sense, but as many tokens."""

from __future__ import annotations

import struct
from array import array
from math import prod
from pathlib import Path
from random import Random

_WIDTH, _INNER, _PATCH = 32, 64, 16
_FIELDS: dict[str, object] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "clip.has_vision_encoder": True,
    "clip.projector_type": "pixtral",
    "clip.use_silu": True,
    "clip.vision.attention.head_count": 2,
    "clip.vision.attention.layer_norm_epsilon": 1e-6,
    "clip.vision.block_count": 1,
    "clip.vision.embedding_length": _WIDTH,
    "clip.vision.feed_forward_length": _INNER,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_size": 1540,
    "clip.vision.image_std": [0.5, 0.5, 0.5],
    "clip.vision.patch_size": _PATCH,
    "clip.vision.spatial_merge_size": 2,
}


def write_mmproj(path: Path, *, embedding: int = 576) -> Path:
    """Write a file for a model whose tokens have `embedding` numbers; SmolLM2-135M's have 576."""
    square = dict.fromkeys(
        (f"v.blk.0.attn_{name}" for name in ("q", "k", "v", "out")), (_WIDTH, _WIDTH)
    )
    norms = ("v.blk.0.ln1", "v.blk.0.ln2", "v.pre_ln", "mm.input_norm")
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd": (_PATCH, _PATCH, 3, _WIDTH),
        **square,
        **dict.fromkeys(norms, (_WIDTH,)),
        "v.blk.0.ffn_gate": (_WIDTH, _INNER),
        "v.blk.0.ffn_up": (_WIDTH, _INNER),
        "v.blk.0.ffn_down": (_INNER, _WIDTH),
        "mm.patch_merger": (4 * _WIDTH, _WIDTH),
        "mm.1": (_WIDTH, embedding),
        "mm.2": (embedding, embedding),
    }
    tensors = {f"{name}.weight": shape for name, shape in shapes.items()}
    tensors["v.token_embd.img_break"] = (embedding,)
    fields = {**_FIELDS, "clip.vision.projection_dim": embedding}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(_string(name) + _value(value) for name, value in fields.items())
    data, random = b"", Random(7)
    for name, shape in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += _padded(array("f", [random.gauss(0, 0.1) for _ in range(prod(shape))]).tobytes())
    path.write_bytes(_padded(head) + data)
    return path


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case list():
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
    raise AssertionError(value)
