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

    error: type[ModelError]
    cure: str
    router: str = ""


# By HTTP status if there is one; 3xx, 4xx and 5xx cover all other codes of their class.
# docs/operating.md has the same table with what happens in each case.
FAILURES: Mapping[str, Failure] = {
    "401": Failure(
        ModelDenied,
        "set MODEL_API_KEY to a key that it accepts",
        f"set HF_TOKEN to a token from {TOKENS}",
    ),
    "402": Failure(
        ModelUnpaid,
        "add credit to the account of MODEL_API_KEY, or set MODEL_FALLBACKS",
        "add credit at https://huggingface.co/settings/billing, or set MODEL_URL",
    ),
    "403": Failure(
        ModelDenied, "let MODEL_API_KEY use {model} there", f"allow HF_TOKEN {CALLS} at {TOKENS}"
    ),
    "gated": Failure(
        ModelDenied,
        "accept the licence of {model} with the account of MODEL_API_KEY",
        "accept the licence at https://huggingface.co/{model} with the account of HF_TOKEN",
    ),
    "404": Failure(
        ModelUnknown,
        "it does not serve {model}; check MODEL_ID and MODEL_URL",
        f"set MODEL_ID to a model that somebody serves ({SERVED}), or set MODEL_FALLBACKS",
    ),
    "413": Failure(PromptTooLong, "the prompt is too long; lower CONTEXT_TOKENS or MAX_TOKENS"),
    "422": Failure(PromptRefused, "check MODEL_ID, MAX_TOKENS, TEMPERATURE and TOP_P"),
    "429": Failure(
        ModelBusy,
        "raise the limit of MODEL_API_KEY there, or set MODEL_FALLBACKS",
        "raise the limit of HF_TOKEN's account (https://huggingface.co/pricing), or set MODEL_URL",
    ),
    "503": Failure(
        ModelLoading,
        f"it is not ready; wait, or {_LOG}",
        "it is not ready; wait, or set MODEL_FALLBACKS",
    ),
    "3xx": Failure(ModelElsewhere, _NO_API, _BETWEEN),
    "page": Failure(ModelElsewhere, _NO_API, _BETWEEN),
    "4xx": Failure(PromptRefused, "check MODEL_ID, MAX_TOKENS, TEMPERATURE and TOP_P"),
    "5xx": Failure(ModelUnavailable, f"it failed; {_LOG}", _PROVIDER),
    "unreachable": Failure(
        ModelUnavailable,
        "is it running, and is MODEL_URL right?",
        "is this machine online, or does it need a proxy (HTTPS_PROXY)?",
    ),
    "certificate": Failure(
        ModelElsewhere,
        f"check the host in MODEL_URL; {_TRUST}",
        f"does something stand between this machine and it? {_TRUST}",
    ),
    "plain": Failure(
        ModelElsewhere, "it speaks HTTP there: let MODEL_URL begin with http://", _BETWEEN
    ),
    "tls": Failure(ModelElsewhere, "it speaks HTTPS there: let MODEL_URL begin with https://"),
    "closed": Failure(
        ModelUnavailable,
        f"{_LOG}; if it speaks HTTPS, let MODEL_URL begin with https://",
        _PROVIDER,
    ),
    "cut": Failure(ModelUnavailable, _LOG, _PROVIDER),
    "endless": Failure(ModelUnavailable, _LOG, _PROVIDER),
    "event": Failure(ModelUnavailable, f"it failed; {_LOG}", _PROVIDER),
    "garbage": Failure(
        ModelUnavailable,
        f"check MODEL_URL, and whether it begins with http:// or https://; {_LOG}",
        _PROVIDER,
    ),
    "silence": Failure(
        ModelSilent,
        "is it overloaded? set MODEL_FALLBACKS, or MODEL_URL to a faster server",
        "set MODEL_ID to a faster model or provider ({model}:fastest), or set MODEL_FALLBACKS",
    ),
    "slow": Failure(ModelSilent, "raise REPLY_TIMEOUT, or lower MAX_TOKENS"),
    "empty": Failure(EmptyAnswer, "set MODEL_ID to a model that is made for chats"),
    "thought": Failure(EmptyAnswer, "raise MAX_TOKENS"),
    "offline": Failure(
        ModelElsewhere, "unset HF_HUB_OFFLINE, or set MODEL_URL to a server of your own"
    ),
}
