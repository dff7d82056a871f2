"""Detects errors about prompts that are too long, and reads the figures in them.

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
_USED = (
    rf"{_NUMBER} (?:tokens )?(?:in|from) the (?:input )?messages",
    rf"{_NUMBER} input tokens",
    rf"{_NUMBER} `inputs` tokens",
    rf"given: {_NUMBER}",
    rf"resulted in {_NUMBER}",
    rf"request \({_NUMBER}",
    rf"input \({_NUMBER}",
    rf"\((?:total )?length {_NUMBER}",
    rf"prompt contains {_NUMBER}",
    rf"too long: {_NUMBER}",
)


def figures(error: Mapping[str, Json]) -> tuple[int | None, int | None]:
    """Return the tokens of the context and of the prompt in an error about a too long prompt."""
    context, used = error.get("n_ctx"), error.get("n_prompt_tokens")  # llama.cpp
    if is_count(context) and is_count(used):
        return context, used
    text = str(error.get("message")).lower()[:1000]
    return _number(_CONTEXT, text), _number(_USED, text)


def _number(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        if found := re.search(pattern, text):
            number = int(found[1].replace(",", ""))
            return number if is_count(number) else None
    return None
