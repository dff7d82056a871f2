"""text-generation-inference.

Sources: huggingface/text-generation-inference, docs/openapi.json, router/src/validation.rs,
server.rs and infer/mod.rs; its issue 2749 and huggingface_hub issue 2514 for what a stream says.
"""

from __future__ import annotations

import json
from typing import ClassVar

from bot.domain import Json
from tests.emulators.model.dialect import (
    COMPLETIONS,
    INFO,
    MODELS,
    TOKENIZE,
    Dialect,
    Need,
    Object,
    Refused,
    Served,
)
from tests.emulators.model.rules import Complaint
from tests.emulators.model.tokens import number, tokens

_TYPES = {422: "validation", 424: "generation", 429: "overloaded", 500: "incomplete_generation"}


class Tgi(Dialect):
    """It has one model, whatever it is asked for, and speaks without a first chunk."""

    endpoints = frozenset({COMPLETIONS, TOKENIZE, MODELS, INFO})
    opening = None
    chorus: ClassVar[Object] = {"role": "assistant"}

    def error(self, status: int, message: str) -> Json:
        return {"error": message, "error_type": _TYPES.get(status, "generation")}

    def event(self, status: int, message: str) -> Json:
        return {"error": {"message": message, "http_status_code": status}}

    def unauthorised(self) -> Refused:
        return Refused(401, "")

    def nowhere(self) -> Refused:
        return Refused(404, "")

    def invalid(self, complaint: Complaint) -> Refused:
        return Refused(422, self.error(422, f"Input validation error: {complaint}"))

    def misordered(self, message: str) -> Refused:
        return Refused(422, {"error": f"Template error: {message}", "error_type": "template_error"})

    def complaint(self, body: Object) -> Complaint | None:
        if body.get("top_p") == 1:
            return Complaint("top_p", "`top_p` must be > 0.0 and < 1.0")
        return None

    def too_long(self, need: Need, context: int) -> Refused | None:
        if need.prompt + (need.answer or 1) <= context:
            return None
        message = (
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}."
            f" Given: {need.prompt} `inputs` tokens and {need.answer or 0} `max_new_tokens`"
        )
        # The stream has begun before the prompt is counted, so it is too late for a status.
        event = json.dumps(self.event(422, message))
        kind = {"Content-Type": "text/event-stream"}
        return Refused(200, f"data: {event}\n\ndata: [DONE]\n\n", kind)

    def tell(self, endpoint: str, served: Served) -> Json:
        if endpoint == INFO:
            context = served.context or 32768
            return {
                "model_id": served.name,
                "max_input_tokens": context - 1,
                "max_total_tokens": context,
            }
        return super().tell(endpoint, served)

    def tokenize(self, body: Object, served: Served) -> Json:
        if not isinstance(body.get("inputs"), str):
            raise self.invalid(Complaint("inputs", "missing field `inputs`"))
        found: list[Json] = []
        start = 0
        for token in tokens(str(body["inputs"])):
            stop = start + len(token)
            found.append({"id": number(token), "text": token, "start": start, "stop": stop})
            start = stop
        return found
