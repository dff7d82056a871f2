"""What a model server wants of its requests, learnt from what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from bot.domain import Message
from bot.errors import (
    ModelUnavailable,
    ModelUnknown,
    PromptRefused,
    SystemRefused,
    UsageRefused,
)
from bot.model.fit import without_system
from bot.model.server import ModelServer
from bot.model.server_info import look

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: `counts` asks the server to count tokens (`stream_options`)."""

    model: str
    prompt: Sequence[Message]
    counts: bool


Send = Callable[[Request], Awaitable[None]]


class ServerCapabilities:
    """One server's: the name of its model, no system prompt, no `stream_options`.

    Each is tried once in an answer, and remembered when it led to one: a refusal may have another
    reason, or repeat a person's words. What a server has once taken it is given again.
    """

    def __init__(self, server: ModelServer) -> None:
        self.server = server  # with the name by which its model is asked for now
        self._name = server.model
        # None: not known yet.
        self._folds: bool | None = None  # the system prompt has to stand in the first question
        self._counts: bool | None = None  # it takes it well to be asked for a count of tokens

    async def ask(self, send: Send, prompt: Sequence[Message]) -> None:
        """Send a prompt as the server wants it; raise ModelError when it refuses all the same."""
        server = self.server  # other answers learn its name meanwhile, too
        try:
            await self._ask_in_order(send, prompt)
        except ModelUnknown as error:
            await self._learn_name(server, error)
            if (learnt := self.server) == server:
                raise
            try:
                await self._ask_in_order(send, prompt)
            except ModelUnknown:
                if self.server == learnt:
                    self.server = server
                raise

    async def _learn_name(self, server: ModelServer, error: ModelUnknown) -> None:
        """Ask for MODEL_ID, or the only model, of a server from now on; else nothing is learnt."""
        name = server.own and (error.offered or (await look(server)).name_for(self._name))
        if name and name != server.model and self.server is server:
            if name == self._name:
                log.warning("%s has MODEL_ID=%s again", server, name)
            else:
                log.warning(
                    "%s has %s and not MODEL_ID=%s: that is asked", server, name, self._name
                )
            self.server = replace(server, model=name)

    async def _ask_in_order(self, send: Send, prompt: Sequence[Message]) -> None:
        """Ask, and once again without a system prompt where the model's template knows none."""
        folds = self._folds
        try:
            await self._ask_for_count(send, prompt)
        except (SystemRefused, ModelUnavailable) as error:
            if folds or prompt[0].role != "system" or not self._may_fold(error, folds):
                raise
            await self._ask_for_count(send, without_system(prompt))
            if self._folds is None:
                self._folds = True
        else:
            if prompt[0].role == "system":
                self._folds = self._folds or False

    def _may_fold(self, error: SystemRefused | ModelUnavailable, folds: bool | None) -> bool:
        # `transformers serve` 5.23 fails so where a template refuses a system prompt; of a server
        # that has taken one, and of Hugging Face's, it is a failure like any other.
        if isinstance(error, ModelUnavailable):
            return error.wordless and folds is None and self.server.own
        return True

    async def _ask_for_count(self, send: Send, prompt: Sequence[Message]) -> None:
        """Ask, and once again without the count of tokens, where that may be what is refused."""
        counts = self._counts
        try:
            await self._send(send, prompt, counts=counts is not False)
        except PromptRefused as refusal:
            if not _may_mean_the_count(refusal, counts):
                raise
            await self._send(send, prompt, counts=False)
            self._counts = False
        else:
            self._counts = counts is not False

    async def _send(self, send: Send, prompt: Sequence[Message], *, counts: bool) -> None:
        folded = without_system(prompt) if self._folds else prompt
        await send(Request(self.server.model, folded, counts))


def _may_mean_the_count(refusal: PromptRefused, counts: bool | None) -> bool:
    # Some servers do not say which field they do not know.
    unclear = type(refusal) is PromptRefused and refusal.status in (400, 422)
    return isinstance(refusal, UsageRefused) or (unclear and counts is None)
