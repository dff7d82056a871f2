"""llama.cpp's server, as xllamacpp 2026.10 runs it; a test holds this file against the real one."""

from __future__ import annotations

from typing import ClassVar

from bot.domain import Json
from tests.emulators.model.dialect import (
    COMPLETIONS,
    MODELS,
    PROPS,
    TEMPLATE,
    TOKENIZE,
    Dialect,
    Need,
    Object,
    Refused,
    Served,
)
from tests.emulators.model.tokens import number, tokens

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class LlamaCpp(Dialect):
    """It answers for whatever model it is asked."""

    endpoints = frozenset({COMPLETIONS, TOKENIZE, TEMPLATE, MODELS, PROPS})
    opening: ClassVar[Object | None] = {"role": "assistant", "content": None}

    def error(self, status: int, message: str) -> Json:
        kind = _TYPES.get(status, "server_error")
        return {"error": {"code": status, "message": message, "type": kind}}

    def unauthorised(self) -> Refused:
        return Refused(401, self.error(401, "Invalid API Key"))

    def nowhere(self) -> Refused:
        return Refused(404, self.error(404, "File Not Found"))

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt < context:
            return None
        error: Json = {
            "code": 400,
            "message": f"request ({need.prompt} tokens) exceeds the available context size"
            f" ({context} tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": need.prompt,
            "n_ctx": context,
        }
        return Refused(400, {"error": error})

    def tell(self, endpoint: str, served: Served) -> Json:
        if endpoint == PROPS:
            return {"default_generation_settings": {"n_ctx": served.context or 32768}}
        return super().tell(endpoint, served)

    def tokenize(self, body: Object, served: Served) -> Json:
        found = tokens(str(body.get("content", "")))
        if body.get("with_pieces"):
            return {"tokens": [{"id": number(each), "piece": each} for each in found]}
        return {"tokens": [number(each) for each in found]}
