"""vLLM's server.

Sources: vllm-project/vllm, entrypoints/serve/tokenize/protocol.py, entrypoints/serve/utils/
server_utils.py and error_response.py, renderers/params.py; for the words of 0.16 and newer about a
prompt that is too long, harbor-framework/harbor pull request 996.
"""

from __future__ import annotations

from bot.domain import Json
from tests.emulators.model.dialect import (
    COMPLETIONS,
    MODELS,
    TOKENIZE,
    Dialect,
    Need,
    Object,
    Refused,
    Served,
)
from tests.emulators.model.rules import Complaint, nameless
from tests.emulators.model.template import render
from tests.emulators.model.tokens import number, tokens

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 501: "NotImplementedError"}


class Vllm(Dialect):
    """It knows its models by name, and refuses an answer that may outgrow the context."""

    endpoints = frozenset({COMPLETIONS, TOKENIZE, MODELS})

    def error(self, status: int, message: str) -> Json:
        return _error(status, message)

    def unauthorised(self) -> Refused:
        return Refused(401, {"error": "Unauthorized"})

    def guards(self, call: str) -> bool:
        return "/v1/" in call

    def complaint(self, body: Object) -> Complaint | None:
        return nameless(body)

    def find(self, name: str, served: Served) -> None:
        if name not in served.models:
            message = f"The model `{name}` does not exist."
            raise Refused(404, _error(404, message, param="model"))

    def too_long(self, need: Need, context: int) -> Refused | None:
        room = context - (need.answer or 0)
        if need.prompt <= room and need.prompt < context:
            return None
        message = (
            f"You passed {need.prompt} input tokens and requested {need.answer or 0} output"
            f" tokens. However, the model's context length is only {context} tokens, resulting in a"
            f" maximum input length of {room} tokens. Please reduce the length of the input prompt."
            f" (parameter=input_tokens, value={need.prompt})"
        )
        return Refused(400, _error(400, message, param="input_tokens"))

    def card(self, name: str, served: Served) -> Json:
        context = served.context or 32768
        return {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": context}

    def tokenize(self, body: Object, served: Served) -> Json:
        match body:
            case {"messages": list(messages)}:
                text = render(each for each in messages if isinstance(each, dict))
            case {"prompt": str(text)}:
                pass
            case _:
                raise self.invalid(Complaint("prompt", "Field required"))
        found = tokens(text)
        return {
            "count": len(found),
            "max_model_len": served.context or 4096,
            "tokens": [number(each) for each in found],
            "token_strs": list[Json](found) if body.get("return_token_strs") else None,
        }


def _error(status: int, message: str, *, param: str | None = None) -> Json:
    kind = _TYPES.get(status, "InternalServerError")
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}
