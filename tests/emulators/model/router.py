"""Hugging Face's router, https://router.huggingface.co/v1, and as much of the Hub as goes with it.

Sources: huggingface.co/docs/inference-providers (Chat Completion; Hub API, "List OpenAI-compatible
models"; Pricing and Billing), huggingface_hub 2.4's `HfApi.whoami`, and its answers as others have
met them: the "not supported" of a model is an object with a code, what concerns the account a plain
string, and a fine-grained token's permissions stand in "global" and "scoped".
"""

from __future__ import annotations

from bot.domain import Json
from tests.emulators.model.dialect import (
    COMPLETIONS,
    MODEL,
    WHOAMI,
    Dialect,
    Need,
    Object,
    Refused,
    Served,
)
from tests.emulators.model.rules import Complaint, nameless


class Router(Dialect):
    """It passes a request on to a provider of the model, and counts no tokens."""

    endpoints = frozenset({COMPLETIONS, MODEL, WHOAMI})

    def guards(self, call: str) -> bool:
        return call != MODEL

    def error(self, status: int, message: str) -> Json:
        return {"error": message} if status != 400 else _error(message)

    def unauthorised(self) -> Refused:
        return Refused(401, self.error(401, "Invalid username or password."))

    def complaint(self, body: Object) -> Complaint | None:
        return nameless(body)

    def find(self, name: str, served: Served) -> None:
        # A provider, or a policy such as "fastest", may stand behind a colon.
        name = name.partition(":")[0]
        if name not in served.models:
            message = f"The requested model '{name}' does not exist"
            raise Refused(400, _error(message, param="model", code="model_not_found"))

    def describe(self, name: str, served: Served) -> Json:
        if name not in served.models:
            message = f"The requested model '{name}' does not exist"
            raise Refused(404, _error(message, param="model", code="model_not_found"))
        providers: list[Json] = [
            {"provider": who, "status": status, "is_model_author": False}
            for who, status in served.providers.items()
        ]
        return {"id": name, "object": "model", "created": 0, "providers": providers}

    def whoami(self, served: Served) -> Json:
        token: Object = {"displayName": "emulated", "role": "read"}
        if served.permissions is not None:
            scope: Json = {
                "entity": {"type": "user", "name": "emulated"},
                "permissions": list(served.permissions),
            }
            token |= {"role": "fineGrained", "fineGrained": {"global": [], "scoped": [scope]}}
        return {"type": "user", "name": "emulated", "auth": {"accessToken": token}}

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt + (need.answer or 1) <= context:
            return None
        message = f"This model's maximum context length is {context} tokens."
        return Refused(400, _error(message, param="messages", code="context_length_exceeded"))


def unsupported(name: str) -> Refused:
    """Refuse a model that exists, and that nobody runs for this account."""
    message = f"The requested model '{name}' is not supported by any provider you have enabled."
    return Refused(400, _error(message, param="model", code="model_not_supported"))


def _error(message: str, *, param: str | None = None, code: str | None = None) -> Json:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
