"""A model server's address, and the errors for its responses."""

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
    ModelError,
    PicturesRefused,
    PromptTooLong,
    SystemRefused,
    ToolsRefused,
    UsageRefused,
)
from bot.model.failures import FAILURES
from bot.text.sanitize import one_line
from bot.tokens.counters import is_count

# What servers say if a prompt is too long, and where their texts have the context in tokens. From
# llama.cpp (xllamacpp 2026.10, run), vLLM (renderers/params.py and entrypoints/openai of 0.4 to
# 0.16), SGLang (managers/tokenizer_manager.py), text-generation-inference
# (router/src/validation.rs), OpenAI and the providers behind Hugging Face's router, as their users
# report them: in an error's message, type or code, in small letters.
_TOO_LONG = (
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

# Of the 4xx, those that are transient.
_TRANSIENT = (408, 409, 424, 425)

# Hugging Face's router reports an unknown model so, with or without a code.
_UNKNOWN = ("model_not_supported", "model_not_found", "not supported by any provider")
# The status of an error that has none.
_STATUS_BY_MARKS = (
    (401, ("invalid_api_key", "invalid api key", "authentication_error")),
    (404, _UNKNOWN),
    (413, _TOO_LONG),
    (429, ("rate limit", "rate_limit", "too many requests", "quota", "overloaded")),
    (503, ("is loading", "currently loading", "loading model")),
)
# A licence that was not accepted: the Hub's header X-Error-Code, and its message.
_GATED = ("gatedrepo", "gated repo", "gated model", "gives you access")

# A template without a system prompt: Gemma's names it, older Mistrals' report that it breaks the
# order of roles. The servers repeat the template's message (vLLM, TGI, transformers serve).
_NO_SYSTEM = ("system role not supported", "system role is not supported", "roles must alternate")
# What servers say if a model does not see, or not this picture: llama.cpp (xllamacpp 2026.10, run:
# with HTTP 500), vLLM, Ollama, OpenRouter (with 404); 413 means that there are too many bytes.
_NO_PICTURES = re.compile(rb"image|multi-?modal|modalit|(?<![a-z])vision", re.IGNORECASE)
# The same of tools: vLLM (entrypoints/openai: "auto" tool choice requires …), Ollama ("does not
# support tools"), llama.cpp (xllamacpp 2026.10: "tools param requires --jinja flag", "Unable to
# generate parser for this template"), OpenRouter (404: "support tool use"), providers behind
# Hugging Face's router (422: "not supported for this model: tools", 405), and templates of Mistral.
_NO_TOOLS = re.compile(rb"tool|function.?call|generate parser", re.IGNORECASE)
# Groq: the model wrote a call that cannot be read, which says nothing of the next one.
_BAD_CALL = b"tool_use_failed"
_REFUSES_PARTS = (400, 404, 405, 415, 422, 500, 501)

# An error's type or code goes into the log; a message does not, for it may repeat the prompt.
_IDENTIFIER = re.compile(r"[A-Za-z][\w.-]{0,63}")


@dataclass(frozen=True, slots=True)
class ModelServer:
    """An OpenAI-compatible address with its key; `own` is False for Hugging Face's router.

    `str` is the host and port: the rest of an address may have a password in it.
    """

    url: str = field(repr=False)
    key: str = field(repr=False)
    model: str
    own: bool

    def __str__(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def failure(
        self,
        name: str,
        happened: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        response: Mapping[str, Json] | None = None,
    ) -> ModelError:
        """Return the error for one of FAILURES, with its cure, and what the `response` adds."""
        failure = FAILURES[name]
        cure = failure.cure if self.own else failure.router or failure.cure
        # A provider may follow a colon.
        cure = cure.format(model=self.model.partition(":")[0])
        text = f"{self} {happened}: {cure}"
        if context := _context_of(response or {}):
            text += f" ({context} tokens fit)"
        error = failure.error(text, status=status, retry_after=retry_after)
        if isinstance(error, PromptTooLong):
            error.context = context
        return error

    def refusal(
        self,
        *,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        has_stream_options: bool,
        has_pictures: bool,
        has_tools: bool,
    ) -> ModelError:
        """Return the error for a response that is no stream, whatever its status.

        `has_stream_options`, `has_pictures` and `has_tools` say what the request had.
        """
        error = _fields(parsed_object(body))
        happened = f"answered HTTP {status}{_code(error)}"
        if 200 <= status < 300:
            meant = _meant_status(error)
            if meant is None:
                kind = one_line(headers.get("Content-Type", "nothing"))[:100]
                return self.failure("page", f"answers with {kind} and not with a stream")
            status, happened = meant, f"{happened} and the error {meant} in it"
        if has_stream_options and status in (400, 422) and b"stream_options" in body:
            return UsageRefused(f"{self} {happened}: it does not know stream_options")
        if status in (400, 422, 424, 500) and _mentions(error, _NO_SYSTEM):
            text = f"{self} {happened}: the model's template knows no system prompt"
            return SystemRefused(text, status=status)
        name = _failure_name(status, headers, error)
        is_of_parts = status in _REFUSES_PARTS and name != "413"
        if has_pictures and (status == 413 or (is_of_parts and _NO_PICTURES.search(body))):
            text = f"{self} {happened}: it does not accept the pictures of the question"
            return PicturesRefused(text, status=status)
        if has_tools and is_of_parts and _NO_TOOLS.search(body) and _BAD_CALL not in body:
            text = f"{self} {happened}: it does not accept tools"
            return ToolsRefused(text, status=status)
        return self.failure(
            name,
            happened,
            status=status,
            retry_after=_retry_after(headers, error),
            response=error,
        )

    def event(self, event: Mapping[str, Json]) -> ModelError:
        """Return the error for an error event within a stream."""
        error = _fields(event)
        status = _meant_status(error)
        name = _failure_name(status, {}, error) if status else "event"
        if name in ("4xx", "422"):
            # The request was accepted; from then on vLLM sends 400 for every error.
            name = "event"
        return self.failure(name, f"broke the answer off{_code(error)}", response=error)


def _context_of(error: Mapping[str, Json]) -> int | None:
    """Return the context in an error about a prompt that is too long, in tokens, if it has one."""
    if is_count(context := error.get("n_ctx")):  # llama.cpp
        return context
    text = str(error.get("message")).lower()[:1000]
    for pattern in _CONTEXT:
        if found := re.search(pattern, text):
            number = int(found[1].replace(",", ""))
            return number if is_count(number) else None
    return None


def _meant_status(error: Mapping[str, Json]) -> int | None:
    """Return the HTTP status that an error's code or message means; None if it is unknown.

    Routers report the status of their providers so (OpenRouter, docs: Errors and Debugging).
    """
    for field_name in ("code", "status", "status_code"):
        value = error.get(field_name)
        if isinstance(value, int | str) and re.fullmatch("[45][0-9][0-9]", str(value)):
            return int(value)
    return next((status for status, marks in _STATUS_BY_MARKS if _mentions(error, marks)), None)


def _failure_name(status: int, headers: Mapping[str, str], error: Mapping[str, Json]) -> str:
    if status in _TRANSIENT:
        return "5xx"
    if status in (400, 422, 500) and _mentions(error, _TOO_LONG):
        return "413"
    if status == 400 and _mentions(error, _UNKNOWN):
        return "404"
    if status == 403 and _mentions({**error, "code": headers.get("X-Error-Code", "")}, _GATED):
        return "gated"
    if status == 405:
        return "page"
    if str(status) in FAILURES:
        return str(status)
    return f"{status // 100}xx" if status // 100 in (3, 4) else "5xx"


def parsed_object(body: bytes | str) -> Mapping[str, Json]:
    """Return a JSON object; {} if the body is not one."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _fields(data: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return an error's fields in one flat dictionary, for every known format."""
    error = data.get("error")
    if isinstance(error, dict):
        return {**data, **error}
    # FastAPI, and so `transformers serve`, says "detail".
    text = error if isinstance(error, str) else data.get("detail")
    return {**data, "message": text} if isinstance(text, str) else data


def _mentions(error: Mapping[str, Json], marks: tuple[str, ...]) -> bool:
    text = " ".join(str(error.get(name)) for name in ("message", "type", "code", "error_type"))
    text = text.lower()
    return any(mark in text for mark in marks)


def _code(error: Mapping[str, Json]) -> str:
    for name in ("code", "type", "error_type"):
        value = error.get(name)
        if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
            return f" ({value})"
    return ""


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Json]) -> float | None:
    """Return the seconds to wait, from the header or from Hugging Face's `estimated_time`."""
    header, estimate = headers.get("Retry-After"), error.get("estimated_time")
    for read in (float, lambda date: parsedate_to_datetime(date).timestamp() - time()):
        with suppress(ValueError, OverflowError):
            seconds = read(str(estimate) if header is None else header)
            return max(0.0, seconds) if math.isfinite(seconds) else None
    return None
