"""Ollama.

Sources: ollama/ollama, docs/openapi.yaml (/api/ps), docs/context-length.mdx, server/prompt.go; its
issues 14259 and 17889, where the prompt that is told after a cut is what was left of it.
"""

from __future__ import annotations

from bot.domain import Json
from tests.emulators.model.dialect import (
    COMPLETIONS,
    MODELS,
    PS,
    Dialect,
    Need,
    Refused,
    Served,
)


class Ollama(Dialect):
    """It cuts a prompt that is too long, and says nothing."""

    endpoints = frozenset({COMPLETIONS, MODELS, PS})

    def error(self, status: int, message: str) -> Json:
        return {"error": {"message": message, "type": "api_error", "param": None, "code": None}}

    def find(self, name: str, served: Served) -> None:
        if name not in served.models:
            raise Refused(404, self.error(404, f"model '{name}' not found"))

    def too_long(self, need: Need, context: int) -> Refused | None:
        return None

    def unread(self, need: Need, context: int) -> int:
        # What is left of it is half of the context, so that an answer has room.
        return need.prompt - context // 2 if need.prompt > context else 0

    def tell(self, endpoint: str, served: Served) -> Json:
        if endpoint == PS:
            return {"models": [self._running(each, served) for each in served.models]}
        return super().tell(endpoint, served)

    def _running(self, name: str, served: Served) -> Json:
        return {"name": name, "model": name, "context_length": served.context or 4096}
