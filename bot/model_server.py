"""A model server's address, and what its refusals mean to an operator."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urlsplit

from bot.domain import Json
from bot.errors import (
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelLoading,
    ModelUnavailable,
    ModelUnknown,
    ModelUnpaid,
    PromptRefused,
    PromptTooLong,
)

# What a status means, and its cure; 3, 4 and 5 stand for all others of their hundred.
_MEANINGS: Mapping[int, tuple[type[ModelError], str]] = {
    3: (ModelUnavailable, "it has moved; set MODEL_URL to the new address"),
    4: (PromptRefused, "check MODEL_ID, MAX_TOKENS, TEMPERATURE and TOP_P"),
    5: (ModelUnavailable, "the server failed; look at its log"),
    401: (ModelDenied, "it does not accept the credentials; check {key}"),
    402: (ModelUnpaid, "the account's allowance is used up; add credit, or set MODEL_URL"),
    403: (
        ModelDenied,
        "{key} may not use {model}; accept the model's licence and allow the token inference calls",
    ),
    404: (ModelUnknown, "{model} is not to be had there; check MODEL_ID and MODEL_URL"),
    413: (PromptTooLong, "the prompt is too long; lower CONTEXT_TOKENS or MAX_TOKENS"),
    429: (ModelBusy, "the limit of {key} is reached; raise it there, or set MODEL_URL"),
    503: (ModelLoading, "the model is not ready; wait, or look at the server's log"),
}

# Of the 4xx, those that another try may find gone.
_PASSING = (408, 409, 424, 425)

# How servers say in an error's message, type or code that the prompt is too long: llama.cpp,
# OpenAI, vLLM, text-generation-inference.
_TOO_LONG = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "maximum context length",
    "context length is only",
    "`inputs` tokens + `max_new_tokens` must be",
)
# And that they do not know the model: Hugging Face's router, with or without a code.
_UNKNOWN = ("model_not_supported", "model_not_found", "not supported by any provider")

# An error's type or code goes into the log; a message does not, for it may repeat the prompt.
_IDENTIFIER = re.compile(r"[A-Za-z][\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class ModelServer:
    """An OpenAI-compatible address with its key; `own` is False for Hugging Face's router.

    `str` is the host and port: the rest of an address may hold a password.
    """

    url: str = field(repr=False)
    key: str = field(repr=False)
    model: str
    own: bool

    def __str__(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def refusal(self, *, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
        """Return the error for an HTTP response that is not a success."""
        said = _fields(_loaded(body))
        kind, cure = _MEANINGS.get(_meant(status, said)) or _MEANINGS.get(
            status // 100, _MEANINGS[5]
        )
        cure = cure.format(key="MODEL_API_KEY" if self.own else "HF_TOKEN", model=self.model)
        return kind(
            f"{self} answered HTTP {status}{_code(said)}: {cure}{_tokens(said)}",
            status=status,
            retry_after=_retry_after(headers, said),
        )

    def event(self, event: Mapping[str, Json]) -> ModelError:
        """Return the error for an event of a stream that tells of one."""
        said = _fields(event)
        kind, cure = _MEANINGS[413 if _mentions(said, _TOO_LONG) else 5]
        return kind(f"{self} broke the answer off{_code(said)}: {cure}{_tokens(said)}")


def _meant(status: int, said: Mapping[str, Json]) -> int:
    if status in _PASSING:
        return 5
    if status in (400, 422, 500) and _mentions(said, _TOO_LONG):
        return 413
    if status == 400 and _mentions(said, _UNKNOWN):
        return 404
    return status


def _loaded(body: bytes) -> Mapping[str, Json]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _fields(data: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return an error's fields in one flat dictionary, whichever dialect they come in."""
    error = data.get("error")
    if isinstance(error, dict):
        return {**data, **error}
    return {**data, "message": error} if isinstance(error, str) else data


def _mentions(said: Mapping[str, Json], marks: tuple[str, ...]) -> bool:
    words = " ".join(str(said.get(name)) for name in ("message", "type", "code", "error_type"))
    return any(mark in words.lower() for mark in marks)


def _code(said: Mapping[str, Json]) -> str:
    for name in ("code", "type", "error_type"):
        value = said.get(name)
        if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
            return f" ({value})"
    return ""


def _tokens(said: Mapping[str, Json]) -> str:
    used, room = said.get("n_prompt_tokens"), said.get("n_ctx")
    if isinstance(used, int) and isinstance(room, int):
        return f" ({used} tokens, {room} fit)"
    return ""


def _retry_after(headers: Mapping[str, str], said: Mapping[str, Json]) -> float | None:
    """Return the seconds to wait, from the header or from Hugging Face's `estimated_time`."""
    header, estimate = headers.get("Retry-After"), said.get("estimated_time")
    if header is None:
        return float(estimate) if isinstance(estimate, int | float) else None
    for read in (float, _until):
        with suppress(ValueError):
            seconds = read(header)
            return max(0.0, seconds) if math.isfinite(seconds) else None
    return None


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time()
