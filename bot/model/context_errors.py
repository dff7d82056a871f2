"""Detects errors about prompts that are too long, and reads the context in them.

The texts are from llama.cpp (xllamacpp 2026.10, run), vLLM (renderers/params.py and
entrypoints/openai of 0.4 to 0.16), SGLang (managers/tokenizer_manager.py),
text-generation-inference (router/src/validation.rs), OpenAI and the providers behind Hugging Face's
router, as their users report them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bot.domain import Json
from bot.tokens.counters import is_count

# In an error's message, type or code, in small letters.
MARKS = (
    "exceed_context_size_error",  # llama.cpp
    "exceeds the available context size",
    "context_length_exceeded",  # OpenAI, Groq
    "maximum context length",  # OpenAI, vLLM, SGLang, Mistral, DeepSeek, Fireworks
    "context length is only",  # vLLM from 0.16 on
    "longer than the maximum model length",  # vLLM
    "too long to fit into the model",
    "longer than the model's context length",  # SGLang
    "`inputs` tokens + `max_new_tokens` must be",  # text-generation-inference, Together
    "`inputs` must have less than",
    "greater than the context length",  # LM Studio
    "reduce the length of the messages",  # Groq
    "prompt is too long",
    "input is too long",
)

_NUMBER = r"(\d[\d,]{0,11})"
_CONTEXT = (
    rf"context length (?:is|of) (?:only )?{_NUMBER}",
    rf"context length \(?{_NUMBER}",
    rf"context length: {_NUMBER}",
    rf"context size \({_NUMBER}",
    rf"model length of {_NUMBER}",
    rf"{_NUMBER} maximum context length",
    rf"must be <= {_NUMBER}",
    rf"must have less than {_NUMBER}",
    rf"> {_NUMBER} maximum",
)


def context_of(error: Mapping[str, Json]) -> int | None:
    """Return the context in an error about a prompt that is too long, in tokens, if it has one."""
    if is_count(context := error.get("n_ctx")):  # llama.cpp
        return context
    text = str(error.get("message")).lower()[:1000]
    for pattern in _CONTEXT:
        if found := re.search(pattern, text):
            number = int(found[1].replace(",", ""))
            return number if is_count(number) else None
    return None
