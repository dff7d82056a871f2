"""The failures of model servers, each with its error and the operator's cure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bot.errors import (
    EmptyAnswer,
    ModelBusy,
    ModelDenied,
    ModelElsewhere,
    ModelError,
    ModelLoading,
    ModelSilent,
    ModelUnavailable,
    ModelUnknown,
    ModelUnpaid,
    PromptRefused,
    PromptTooLong,
)

TOKENS = "https://huggingface.co/settings/tokens"
CALLS = '"Make calls to Inference Providers"'  # the name of the permission on that page
SERVED = "https://huggingface.co/models?inference_provider=all&other=conversational"

_LOG = "look at the server's log"
_PROVIDER = (
    "Hugging Face or its provider failed; name another provider in MODEL_ID ({model}:PROVIDER), "
    "or set MODEL_FALLBACKS"
)
_NO_API = "set MODEL_URL to the address of an OpenAI-compatible server, which usually ends in /v1"
_BETWEEN = "something stands between this machine and it; check HTTPS_PROXY"
# Python trusts what is in SSL_CERT_FILE, and nothing else.
_TRUST = "a certificate of your own goes, beside the usual ones, into the file at SSL_CERT_FILE"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure; `router` is the cure at Hugging Face if it differs."""

    when: str
    error: type[ModelError]
    cure: str
    router: str = ""


# By HTTP status if there is one; 3xx, 4xx and 5xx cover all other codes of their class.
# docs/operating.md has the same table, and a test compares the two.
FAILURES: Mapping[str, Failure] = {
    "401": Failure(
        "HTTP 401: the key is missing or wrong",
        ModelDenied,
        "set MODEL_API_KEY to a key that it accepts",
        f"set HF_TOKEN to a token from {TOKENS}",
    ),
    "402": Failure(
        "HTTP 402: the credit is used up",
        ModelUnpaid,
        "add credit to the account of MODEL_API_KEY, or set MODEL_FALLBACKS",
        "add credit at https://huggingface.co/settings/billing, or set MODEL_URL",
    ),
    "403": Failure(
        "HTTP 403: the key may not do this",
        ModelDenied,
        "let MODEL_API_KEY use {model} there",
        f"allow HF_TOKEN {CALLS} at {TOKENS}",
    ),
    "gated": Failure(
        "HTTP 403: the model's licence is not accepted",
        ModelDenied,
        "accept the licence of {model} with the account of MODEL_API_KEY",
        "accept the licence at https://huggingface.co/{model} with the account of HF_TOKEN",
    ),
    "404": Failure(
        "HTTP 404, or a 400 that names the model: nobody serves it",
        ModelUnknown,
        "it does not serve {model}; check MODEL_ID and MODEL_URL",
        f"set MODEL_ID to a model that somebody serves ({SERVED}), or set MODEL_FALLBACKS",
    ),
    "413": Failure(
        "HTTP 413, or another with that message: the prompt is too long",
        PromptTooLong,
        "the prompt is too long; lower CONTEXT_TOKENS or MAX_TOKENS",
    ),
    "422": Failure(
        "HTTP 422: the server rejected the request",
        PromptRefused,
        "check MODEL_ID, MAX_TOKENS, TEMPERATURE and TOP_P",
    ),
    "429": Failure(
        "HTTP 429: the rate limit is reached",
        ModelBusy,
        "raise the limit of MODEL_API_KEY there, or set MODEL_FALLBACKS",
        "raise the limit of HF_TOKEN's account (https://huggingface.co/pricing), or set MODEL_URL",
    ),
    "503": Failure(
        "HTTP 503: the model is loading",
        ModelLoading,
        f"it is not ready; wait, or {_LOG}",
        "it is not ready; wait, or set MODEL_FALLBACKS",
    ),
    "3xx": Failure("HTTP 3xx: a redirect", ModelElsewhere, _NO_API, _BETWEEN),
    "page": Failure(
        "a web page, or JSON, and not a stream; HTTP 405", ModelElsewhere, _NO_API, _BETWEEN
    ),
    "4xx": Failure(
        "another HTTP 4xx", PromptRefused, "check MODEL_ID, MAX_TOKENS, TEMPERATURE and TOP_P"
    ),
    "5xx": Failure(
        "another HTTP 5xx; 408, 409, 424, 425", ModelUnavailable, f"it failed; {_LOG}", _PROVIDER
    ),
    "unreachable": Failure(
        "no connection",
        ModelUnavailable,
        "is it running, and is MODEL_URL right?",
        "is this machine online, or does it need a proxy (HTTPS_PROXY)?",
    ),
    "certificate": Failure(
        "a certificate that is not trusted",
        ModelElsewhere,
        f"check the host in MODEL_URL; {_TRUST}",
        f"does something stand between this machine and it? {_TRUST}",
    ),
    "plain": Failure(
        "https:// to a server that speaks HTTP",
        ModelElsewhere,
        "it speaks HTTP there: let MODEL_URL begin with http://",
        _BETWEEN,
    ),
    "tls": Failure(
        "http:// to a server that speaks HTTPS",
        ModelElsewhere,
        "it speaks HTTPS there: let MODEL_URL begin with https://",
    ),
    "closed": Failure(
        "cut before the headers, twice",
        ModelUnavailable,
        f"{_LOG}; if it speaks HTTPS, let MODEL_URL begin with https://",
        _PROVIDER,
    ),
    "cut": Failure("cut after the headers", ModelUnavailable, _LOG, _PROVIDER),
    "endless": Failure(
        "a stream that ends without [DONE] or a finish reason", ModelUnavailable, _LOG, _PROVIDER
    ),
    "event": Failure(
        "an error within the stream", ModelUnavailable, f"it failed; {_LOG}", _PROVIDER
    ),
    "garbage": Failure(
        "a chunk that cannot be read, or no HTTP",
        ModelUnavailable,
        f"check MODEL_URL, and whether it begins with http:// or https://; {_LOG}",
        _PROVIDER,
    ),
    "silence": Failure(
        "no delta in time",
        ModelSilent,
        "is it overloaded? set MODEL_FALLBACKS, or MODEL_URL to a faster server",
        "set MODEL_ID to a faster model or provider ({model}:fastest), or set MODEL_FALLBACKS",
    ),
    "slow": Failure("no end in time", ModelSilent, "raise REPLY_TIMEOUT, or lower MAX_TOKENS"),
    "empty": Failure(
        "an empty answer", EmptyAnswer, "set MODEL_ID to a model that is made for chats"
    ),
    "thought": Failure("an empty answer that reached MAX_TOKENS", EmptyAnswer, "raise MAX_TOKENS"),
    "offline": Failure(
        "HF_HUB_OFFLINE",
        ModelElsewhere,
        "unset HF_HUB_OFFLINE, or set MODEL_URL to a server of your own",
    ),
}
