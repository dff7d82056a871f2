"""Models of a few thousand random numbers, made by transformers itself and saved in a folder."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

MARKS = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Of Gemma's, in what it refuses.
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + TEMPLATE
)


def byte_tokenizer(template: str | None, *, positions: int) -> PreTrainedTokenizerFast:
    """One token for each byte: any text can be said, and letters come in several tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate([*MARKS, *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=MARKS[3:],
        model_max_length=positions,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(
    folder: Path,
    *,
    template: str | None = TEMPLATE,
    positions: int = 512,
    width: int = 32,
    readable: bool = True,
    endings: str = "",
) -> Path:
    """Save a causal model that says letters, or any bytes, and mostly without an end.

    Each of `endings` ends its answer.
    """
    torch.manual_seed(7)
    tokenizer = byte_tokenizer(template, positions=positions)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 2 * width}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **sizes,
    )
    model = LlamaForCausalLM(config)
    if readable:
        model.generation_config.update(suppress_tokens=_unreadable(tokenizer))
    if endings:
        ids = [2, *tokenizer.convert_tokens_to_ids([*endings])]
        space = tokenizer.convert_tokens_to_ids("\u0120")
        model.generation_config.update(eos_token_id=ids, begin_suppress_tokens=[*ids, space])
    _save(model, tokenizer, folder)
    return folder


def _unreadable(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the tokens that are no small letter and no space."""
    readable = {*ascii_lowercase, "\u0120"}
    return [number for each, number in tokenizer.get_vocab().items() if each not in readable]


def tiny_blenderbot(folder: Path, *, positions: int = 128) -> Path:
    """Save an encoder-decoder with Blenderbot's positions and its ten beams."""
    torch.manual_seed(7)
    tokenizer = byte_tokenizer(None, positions=positions)
    config = BlenderbotConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=positions,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=2,
    )
    model = BlenderbotForConditionalGeneration(config)
    model.generation_config.update(num_beams=10, max_length=60, min_length=20)
    _save(model, tokenizer, folder)
    return folder


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
