"""What a model server accepts in a request, learned from what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bot.domain import Message
from bot.errors import (
    ModelError,
    ModelUnavailable,
    ModelUnknown,
    PromptRefused,
    SystemRefused,
    UsageRefused,
)
from bot.model.fit import without_system
from bot.model.server_info import fetch_server_info
from bot.model.transport import ServerConnection

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: `with_usage` asks the server to count tokens (`stream_options`)."""

    model: str
    prompt: Sequence[Message]
    with_usage: bool


@dataclass(frozen=True, slots=True)
class _Form:
    """How a request is put; `folds_system` puts the system prompt into the first question."""

    model: str
    with_usage: bool
    folds_system: bool


class ServerCapabilities:
    """One server's: the name of its model, whether it takes a system prompt, and `stream_options`.

    If a refusal may mean one of them, the request is adjusted and sent again, once for each. An
    adjustment is remembered only if it led to an answer: a refusal may have another reason, or
    repeat a person's words.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._server = connection.server
        self._model = connection.server.model
        self._takes_usage: bool | None = None  # None: not known yet
        self._takes_system: bool | None = None

    async def send(self, send: Callable[[Request], Awaitable[_T]], prompt: Sequence[Message]) -> _T:
        """Send a prompt as the server takes it. Raises the last ModelError if it refuses all."""
        first = form = _Form(
            model=self._model,
            with_usage=self._takes_usage is not False,
            folds_system=self._takes_system is False,
        )
        has_system = prompt[0].role == "system"
        while True:
            sent = without_system(prompt) if form.folds_system else prompt
            try:
                result = await send(Request(form.model, sent, form.with_usage))
            except ModelError as error:
                may_rename = form.model == first.model
                adjusted = await self._adjust(
                    form, error, may_rename=may_rename, may_fold=has_system
                )
                if adjusted is None:
                    raise
                form = adjusted
            else:
                self._learn(form, has_system=has_system)
                return result

    async def _adjust(
        self, form: _Form, error: ModelError, *, may_rename: bool, may_fold: bool
    ) -> _Form | None:
        """Return the form to try next; None if the error stands."""
        may_fold = may_fold and not form.folds_system
        match error:
            case ModelUnknown() if may_rename and (name := await self._find_model(error)):
                return replace(form, model=name) if name != form.model else None
            case UsageRefused() if form.with_usage:
                return replace(form, with_usage=False)
            case SystemRefused() if may_fold:
                return replace(form, folds_system=True)
            # `transformers serve` 5.23 fails so if a template refuses a system prompt. From a
            # server that has taken one, and from Hugging Face, it is a failure like any other.
            case ModelUnavailable(wordless=True) if (
                may_fold and self._server.own and self._takes_system is not True
            ):
                return replace(form, folds_system=True)
            # Some servers do not say which field they do not know.
            case PromptRefused(status=400 | 422) if (
                type(error) is PromptRefused and form.with_usage and self._takes_usage is not True
            ):
                return replace(form, with_usage=False)
            case _:
                return None

    async def _find_model(self, error: ModelUnknown) -> str | None:
        """Return MODEL_ID's name at the server, or that of its only model."""
        if not self._server.own or error.offered:
            return error.offered
        return (await fetch_server_info(self._connection)).name_for(self._server.model)

    def _learn(self, form: _Form, *, has_system: bool) -> None:
        if form.model != self._model:
            if form.model == self._server.model:
                log.warning("%s has MODEL_ID=%s again", self._server, form.model)
            else:
                log.warning(
                    "%s does not have MODEL_ID=%s; requests go to %s",
                    *(self._server, self._server.model, form.model),
                )
        self._model, self._takes_usage = form.model, form.with_usage
        # A server that has once taken a system prompt is given the next one, too.
        if has_system and self._takes_system is None:
            self._takes_system = not form.folds_system
