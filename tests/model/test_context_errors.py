"""What servers say of a prompt that is too long, and the context in it."""

from __future__ import annotations

import pytest

from bot.domain import Json
from bot.errors import PromptTooLong
from bot.model.server import ModelServer

SERVER = ModelServer(url="http://127.0.0.1:1/v1", key="k", model="m", own=True)
SAID: dict[str, tuple[Json, int | None]] = {
    "llama.cpp": (
        {
            "code": 400,
            "message": "request (3017 tokens) exceeds the available context size (512 tokens), try"
            " increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 3017,
            "n_ctx": 512,
        },
        512,
    ),
    "llama.cpp, older": (
        {"message": "the request (90 tokens) exceeds the available context size (64 tokens)"},
        64,
    ),
    "vLLM 0.4": (
        {
            "message": "This model's maximum context length is 16384 tokens. However, you requested"
            " 122946 tokens (112946 in the messages, 10000 in the completion). Please reduce the"
            " length of the messages or completion.",
            "type": "BadRequestError",
        },
        16384,
    ),
    "vLLM 0.16": (
        {
            "message": "You passed 5000 input tokens and requested 1024 output tokens. However, the"
            " model's context length is only 4096 tokens, resulting in a maximum input length of"
            " 3072 tokens."
        },
        4096,
    ),
    "vLLM, a longer prompt": (
        {
            "message": "The decoder prompt (length 5000) is longer than the maximum model length of"
            " 4096. Make sure that `max_model_len` is no smaller."
        },
        4096,
    ),
    "vLLM 0.6": (
        {
            "message": "The prompt (total length 25938) is too long to fit into the model (context"
            " length 4096)."
        },
        4096,
    ),
    "SGLang": (
        {
            "message": "Requested token count exceeds the model's maximum context length of 262144"
            " tokens. You requested a total of 337844 tokens: 206772 tokens from the input messages"
            " and 131072 tokens for the completion."
        },
        262144,
    ),
    "SGLang, a longer prompt": (
        {
            "message": "The input (5000 tokens) is longer than the model's context length (4096"
            " tokens)."
        },
        4096,
    ),
    "text-generation-inference": (
        {
            "message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048."
            " Given: 1244 `inputs` tokens and 1000 `max_new_tokens`"
        },
        2048,
    ),
    "text-generation-inference, a longer prompt": (
        {
            "message": "Input validation error: `inputs` must have less than 1024 tokens."
            " Given: 5000"
        },
        1024,
    ),
    "OpenAI": (
        {
            "message": "This model's maximum context length is 4097 tokens. However, your messages"
            " resulted in 7575 tokens. Please reduce the length of the messages.",
            "code": "context_length_exceeded",
        },
        4097,
    ),
    "Mistral": (
        {
            "message": "Prompt contains 300000 tokens, too large for model with 131072 maximum"
            " context length"
        },
        131072,
    ),
    "Fireworks": (
        {"message": "The prompt is too long: 5,000, model maximum context length: 4,096"},
        4096,
    ),
    "Groq": (
        {
            "message": "Please reduce the length of the messages or completion.",
            "code": "context_length_exceeded",
        },
        None,
    ),
    "LM Studio": (
        {"message": "The number of tokens to keep is greater than the context length."},
        None,
    ),
}


@pytest.mark.parametrize("server", SAID)
def test_a_refusal_is_understood_with_its_context(server: str) -> None:
    said, expected = SAID[server]
    assert isinstance(said, dict)

    error = SERVER.event({"error": said})

    assert isinstance(error, PromptTooLong)
    assert error.context == expected


@pytest.mark.parametrize(
    "said", [{}, {"message": "context length is " + "9" * 400}, {"n_ctx": "x"}]
)
def test_strange_figures_are_no_obstacle(said: dict[str, Json]) -> None:
    error = SERVER.failure("413", "refuses it", response=said)

    assert isinstance(error, PromptTooLong)
    assert error.context is None


@pytest.mark.parametrize(("context", "room"), [(None, None), (4096, 3596), (512, 128)])
def test_the_room_for_a_prompt_leaves_some_for_the_answer(
    context: int | None, room: int | None
) -> None:
    error = PromptTooLong("too long")
    error.context = context

    assert error.room(answer=500) == room
