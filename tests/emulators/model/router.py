"""Hugging Face's router, https://router.huggingface.co/v1.

Sources: huggingface.co/docs/inference-providers (Chat Completion; Pricing and Billing), and its
answers as others have met them: the "not supported" of a model is an object with a code, what
concerns the account a plain string.
"""

from __future__ import annotations

from bot.domain import Json
from tests.emulators.model.dialect import Dialect, Need, Object, Refused, Served
from tests.emulators.model.rules import Complaint, nameless


class Router(Dialect):
    """It passes a request on to a provider of the model, and counts no tokens."""

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
