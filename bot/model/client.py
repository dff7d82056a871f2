"""The model behind an OpenAI-compatible address: streams of deltas, and one tree of failures.

Each stream has an `AsyncInferenceClient` of its own, for that class keeps every response until it
is closed; it costs 20 microseconds. What is dear, connections and TLS, lies in one pool for the
process. The events of an answer are read here: with the library's objects of them a token costs 250
microseconds instead of 46 (bench/model.py, huggingface_hub 2.4).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from unicodedata import category

import aiohttp
from huggingface_hub import AsyncInferenceClient, ChatCompletionInputStreamOptions

from bot.domain import Json, Message
from bot.errors import AnswerCut, ModelError
from bot.model.capabilities import Request, ServerCapabilities
from bot.model.metrics import RequestMetrics
from bot.model.server import ModelServer
from bot.model.transport import StreamingRequest, open_pool

ROUTER = "https://router.huggingface.co/v1"

_WITH_USAGE = ChatCompletionInputStreamOptions(include_usage=True)

# Whole answers have 3 to 5 characters to a token, padded tables and diagrams up to 11, and a list
# of the longest words 14 (the vocabularies of `python -m bench.tokens`). The longest single token
# of a common vocabulary is a run of 128 spaces (OpenAI's cl100k_base).
_TOKEN_LENGTH = 16  # characters
_RUN_LENGTH = 128  # characters

_T = TypeVar("_T")


@asynccontextmanager
async def connect(
    *,
    model: str,
    base_url: str | None,
    api_key: str,
    max_tokens: int,
    temperature: float | None,
    top_p: float | None,
    idle_timeout: float,
    total_timeout: float,
) -> AsyncIterator[ChatModel]:
    """Open the connections to a model; without `base_url` to Hugging Face's router.

    The time-outs are in seconds: `idle_timeout` between two signs of life, `total_timeout` for an
    answer. Nothing is sent before the first stream. CannotStart when `base_url` is no web address.
    """
    server = ModelServer(
        # With an empty key the library would send the saved HF_TOKEN, to any address.
        url=base_url or ROUTER,
        key=api_key or "-",
        model=model,
        own=base_url is not None,
    )
    async with open_pool(server) as pool:
        yield ChatModel(
            server=server,
            pool=pool,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            idle_timeout=idle_timeout,
            total_timeout=total_timeout,
        )


class ChatModel:
    """Streams answers; satisfies `bot.ports.Model` for as long as `connect` is open."""

    def __init__(
        self,
        *,
        server: ModelServer,
        pool: aiohttp.ClientSession,
        max_tokens: int,
        temperature: float | None,
        top_p: float | None,
        idle_timeout: float,
        total_timeout: float,
    ) -> None:
        self._wishes = ServerCapabilities(server)
        self._pool = pool
        self._turn = asyncio.Lock()
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._idle_timeout = idle_timeout
        self._total_timeout = total_timeout
        self._name = server.model

    @property
    def name(self) -> str:
        """The model's name as the operator wrote it."""
        return self._name

    @property
    def _server(self) -> ModelServer:
        return self._wishes.server

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        deadline: float = math.inf,
        told: Callable[[int], object] | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield deltas, never empty, until the answer is complete; raise ModelError otherwise.

        An answer begins with its first visible character; white space before it comes with it.
        AnswerCut comes after all that MAX_TOKENS, or the model's context, left room for, and also
        when more characters come than so many tokens can be. Closing the iterator early hangs up on
        the server. Time that the caller spends between two deltas counts for the total time-out
        only; `deadline`, in loop time, may end the answer before.
        `told` is called with the tokens that the server found in the prompt, where it tells.
        """
        deadline = min(deadline, asyncio.get_running_loop().time() + self._total_timeout)
        call = StreamingRequest(server=self._server, pool=self._pool, turn=self._turn)
        finish, unseen, begun = "", "", False
        room = longest(self._max_tokens)
        with RequestMetrics(self.name) as numbers:
            async with AsyncInferenceClient(
                base_url=self._server.url, api_key=self._server.key
            ) as client:
                asking = self._wishes.ask(partial(self._send, client, call), prompt)
                await self._wait(asking, deadline=deadline)
                late: list[bytes] = []  # what comes after the end of the text
                while not (finish or call.ended):
                    for event in await self._wait(call.events(), deadline=deadline):
                        if finish:
                            late.append(event)
                            continue
                        delta, finish, usage = self._read(event)
                        numbers.counted(usage)
                        is_over = len(delta) > room
                        delta = delta[:room]
                        room -= len(delta)
                        if not begun:
                            unseen += delta
                            begun = _can_be_seen(delta)
                            delta = unseen if begun else ""
                        if delta:
                            numbers.heard()
                            yield delta
                        if is_over:
                            raise self._endless(begun=begun)
                for event in late + await call.tail():
                    numbers.counted(_usage(event))
            if told is not None and numbers.read:
                told(numbers.read)
            self._judge(finish, done=call.done, begun=begun)

    def _judge(self, finish: str, *, done: bool, begun: bool) -> None:
        """Raise what an answer's end says."""
        if finish == "error" or not (finish or done):
            raise self._server.failure("endless", "broke the answer off")
        if not begun:
            name = "thought" if finish == "length" else "empty"
            raise self._server.failure(name, "ended its answer without a word")
        if finish == "length":
            raise AnswerCut(f"{self._server} reached MAX_TOKENS={self._max_tokens}")

    def _endless(self, *, begun: bool) -> ModelError:
        """Return the end of an answer that has none."""
        said = f"more than MAX_TOKENS={self._max_tokens} tokens can be"
        if begun:
            return AnswerCut(f"{self._server} said {said}")
        return self._server.failure("empty", f"sent nothing but white space, {said}")

    async def _send(
        self, client: AsyncInferenceClient, call: StreamingRequest, request: Request
    ) -> None:
        with call.sending():
            await client.chat_completion(
                [{"role": message.role, "content": message.text} for message in request.prompt],
                model=request.model,
                stream=True,
                stream_options=_WITH_USAGE if request.counts else None,
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                top_p=self._top_p,
            )

    def _read(self, event: bytes) -> tuple[str, str, Json]:
        """Return an event's text and finish reason, "" where there is none, and its usage."""
        if not event:
            return "", "", None
        try:
            said = json.loads(event)
            if said.get("error") is not None or said.get("object") == "error":
                raise self._server.event(said)
            return *_text_and_finish(said), said.get("usage")
        except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
            raise self._server.failure("garbage", "sent a line that cannot be read") from error

    async def _wait(self, waiting: Awaitable[_T], *, deadline: float) -> _T:
        idle_until = asyncio.get_running_loop().time() + self._idle_timeout
        try:
            async with asyncio.timeout_at(min(idle_until, deadline)):
                return await waiting
        except TimeoutError as error:
            if idle_until < deadline:
                happened = f"said nothing for {self._idle_timeout:g} s"
                raise self._server.failure("silence", happened) from error
            happened = f"did not end its answer in {self._total_timeout:g} s"
            raise self._server.failure("slow", happened) from error


def longest(max_tokens: int) -> int:
    """Return a number of characters that no honest answer of so many tokens exceeds."""
    return _RUN_LENGTH + _TOKEN_LENGTH * max_tokens


def _can_be_seen(text: str) -> bool:
    """Whether a text has more than white space, and signs that steer others or do nothing."""
    return any(not it.isspace() and category(it) not in ("Cc", "Cf") for it in text)


def _usage(event: bytes) -> Json:
    """Return what an event after the end of the text says of tokens; it may say anything."""
    with suppress(ValueError, AttributeError, RecursionError):
        usage: Json = json.loads(event).get("usage")
        return usage
    return None


def _text_and_finish(said: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a `chat.completion.chunk` says."""
    choices = said.get("choices")
    if not choices:  # token counts, or a sign of life
        return "", ""
    text = (choices[0].get("delta") or {}).get("content")
    # Content that is not text (a list of parts) is reasoning: no word of the answer.
    return text if isinstance(text, str) else "", choices[0].get("finish_reason") or ""
