"""What a model's server accepts: the model's name, a system prompt, and a wish for counts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot.domain import Message
from bot.errors import ModelError, ModelUnknown, SystemRefused, UsageRefused
from bot.model.server_info import fetch_server_info
from bot.model.transport import ServerConnection

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """The content of a request; `with_usage` asks the server to count tokens (`stream_options`).

    `folds_system` puts the system prompt into the first question. `is_renamed`: `model` was found
    after the server did not know another name.
    """

    prompt: Sequence[Message]
    model: str
    with_usage: bool
    folds_system: bool
    is_renamed: bool = False

    @property
    def messages(self) -> Sequence[Message]:
        """The prompt as the server accepts it."""
        return without_system(self.prompt) if self.folds_system else self.prompt

    @property
    def has_system(self) -> bool:
        """Whether the system prompt may be the reason for a refusal."""
        return self.prompt[0].role == "system" and not self.folds_system


class ServerCapabilities:
    """A server's model name, and whether it accepts a system prompt and `stream_options`.

    If a refusal may be caused by one of them, the request is adjusted and sent again, once for
    each. An adjustment is saved only if it led to an answer: a refusal may have another reason, or
    repeat a person's text. If `strict`, no other model is used for an unknown one.
    """

    def __init__(self, connection: ServerConnection, *, strict: bool = False) -> None:
        self._connection = connection
        self._server = connection.server
        self._may_rename = connection.server.own and not strict
        self._model = connection.server.model
        self._takes_usage = True
        self._takes_system: bool | None = None  # None: not known yet

    def request(self, prompt: Sequence[Message]) -> Request:
        """Return the first request for a prompt, by what is known of the server."""
        return Request(
            prompt,
            model=self._model,
            with_usage=self._takes_usage,
            folds_system=self._takes_system is False,
        )

    async def adjusted(self, request: Request, error: ModelError) -> Request | None:
        """Return the request to send after a refusal; None if the error is final."""
        match error:
            case ModelUnknown() if self._may_rename and not request.is_renamed:
                # MODEL_ID's name at the server, or that of its only model.
                name = (await fetch_server_info(self._connection)).name_for(self._server.model)
                if not name or name == request.model:
                    return None
                return replace(request, model=name, is_renamed=True)
            case UsageRefused() if request.with_usage:
                return replace(request, with_usage=False)
            case SystemRefused() if request.has_system:
                return replace(request, folds_system=True)
            case _:
                return None

    def learn(self, request: Request) -> None:
        """Save the adjustments of a request that the server has accepted."""
        if request.model != self._model:
            if request.model == self._server.model:
                log.warning("%s serves MODEL_ID=%s again", self._server, request.model)
            else:
                log.warning(
                    "%s does not have MODEL_ID=%s; requests go to %s",
                    *(self._server, self._server.model, request.model),
                )
        self._model, self._takes_usage = request.model, request.with_usage
        # A server that has once accepted a system prompt accepts the next one, too.
        if request.prompt[0].role == "system" and self._takes_system is None:
            self._takes_system = request.has_system


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with the system prompt at the head of the first question."""
    if len(messages) < 2 or messages[0].role != "system":
        return tuple(messages)
    system, first, *rest = messages
    return Message(first.role, f"{system.text}\n\n{first.text}"), *rest
