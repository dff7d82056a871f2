"""The client of one model at an OpenAI-compatible address; huggingface_hub composes requests."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from huggingface_hub import (
    AsyncInferenceClient,
    ChatCompletionInputStreamOptions,
    constants,
    is_offline_mode,
)
from prometheus_client import Counter, Histogram

from bot.concurrency import cancelled
from bot.domain import FileText, Json, Message, Preferences, Tool, ToolCall
from bot.errors import (
    AnswerCut,
    ModelError,
    ModelUnknown,
    SystemRefused,
    ToolsRefused,
    UsageRefused,
)
from bot.model.reasoning import ReasoningFilter, thought_in
from bot.model.server_info import (
    PROBE_SECONDS,
    VALID_SECONDS,
    Abilities,
    fetch_abilities,
    fetch_server_info,
)
from bot.model.tool_calls import CallReader, is_spelled, may_be_spelled, written_call, written_tools
from bot.model.transport import EventStream, ServerConnection
from bot.ports import OnThought
from bot.text.files import label
from bot.text.prompt import without_system
from bot.text.sanitize import is_visible, without_marks
from bot.tokens.counters import is_count
from bot.tracing import span
from config.settings import Settings

log = logging.getLogger(__name__)

# Otherwise the library asks the Hub before its first request, once a day, how to tell which coding
# agent uses it. That blocks the event loop for up to 3 s (huggingface_hub 2.4, _detect_agent.py).
constants.HF_HUB_DISABLE_TELEMETRY = True

ROUTER = "https://router.huggingface.co/v1"

# Whole answers have 3 to 5 characters to a token, padded tables and diagrams up to 11, and a list
# of the longest words 14 (the vocabularies of `python -m bench.tokens`). The longest single token
# of a common vocabulary is a run of 128 spaces (OpenAI's cl100k_base).
_TOKEN_LENGTH = 16  # characters
_RUN_LENGTH = 128  # characters

# Hugging Face's catalogue is long, and changes seldom.
_CATALOGUE_SECONDS = 600.0
_FIRST_REPORT = 1.0  # seconds for which a question waits, to learn whether tools are taken

NOTHING_CHOSEN = Preferences()

_T = TypeVar("_T")
# As servers report them; not counted for an answer that was stopped or broke off.
_TOKENS = Counter(
    "parley_model_tokens_total",
    "Tokens that the model read (in) and wrote (out), as its server counted them",
    ["model", "direction"],
)
_FIRST = Histogram(
    "parley_model_first_token_seconds",
    "From the request to the first text",
    ["model"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)
_SPEED = Histogram(
    "parley_model_tokens_per_second",
    "Tokens of an answer over the time from its first to its last text, as its server counted them",
    ["model"],
    buckets=(1, 2, 5, 10, 20, 30, 50, 75, 100, 200, 500, 1000),
)
_FAILED = Counter(
    "parley_model_failures_total", "Requests that failed, by the error", ["model", "kind"]
)


@dataclass(slots=True)
class Answer:
    """An answer that has begun; read `deltas` to their end, which may raise ModelError.

    The calls of tools follow all text; an answer may have no text then.
    """

    first: str | ToolCall  # text with a visible character
    deltas: AsyncGenerator[str | ToolCall, None]
    left_out: int = 0  # characters of the last message of the prompt
    dropped: int = 0  # exchanges
    files: tuple[FileText, ...] = ()  # what was sent of them
    estimated: int | None = None  # tokens of the prompt, if they were counted
    # Set at the end if the server reports its count.
    prompt_tokens: int | None = None
    answer_tokens: int = 0


class Endpoint(Protocol):
    """One model on one server, without retries."""

    name: str  # as the operator knows it

    def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        deadline: float,
        preferences: Preferences = NOTHING_CHOSEN,
        on_thought: OnThought | None = None,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a prompt and wait for the first delta; leaving the block closes the connection.

        Only temperature and answer length of the `preferences` apply.
        Raises ModelError, and ModelSilent at `deadline`, in loop time.
        """
        ...

    async def sees(self) -> bool:
        """Whether the model sees pictures."""
        ...

    async def takes_tools(self) -> bool | None:
        """Whether the model takes tools; None if only a request with tools can tell."""
        ...


@dataclass(frozen=True, slots=True)
class _Request:
    """The content of a request, which a refusal may adjust."""

    prompt: Sequence[Message]
    tools: Sequence[Tool]
    max_tokens: int
    temperature: float | None
    model: str
    with_usage: bool  # asks the server to count tokens (`stream_options`)
    folds_system: bool  # puts the system prompt into the first question
    is_renamed: bool = False  # the server did not know another name

    @property
    def has_system(self) -> bool:
        """Whether the system prompt may be the reason for a refusal."""
        return self.prompt[0].role == "system" and not self.folds_system


class ModelClient:
    """Streams the answers of a server's model; satisfies `Endpoint`.

    `idle_timeout` bounds the wait between two signs of life, REPLY_TIMEOUT an answer; both are in
    seconds. Time that the caller spends between two deltas counts for the latter only.

    If a refusal may be caused by the model's name, the system prompt or `stream_options`, the
    request is adjusted and sent again, once for each. An adjustment is saved only if it led to an
    answer: a refusal may have another reason, or repeat a person's text. If the server has a single
    other model instead, that model answers, unless the client is `strict`.
    """

    def __init__(
        self,
        connection: ServerConnection,
        settings: Settings,
        *,
        idle_timeout: float,
        strict: bool = False,
    ) -> None:
        self.name = connection.server.model
        self._connection = connection
        self._server = connection.server
        self._may_rename = connection.server.own and not strict
        self._model = connection.server.model
        self._takes_usage = True
        self._takes_system: bool | None = None  # None: not known yet
        self._settings = settings
        self._idle_timeout = idle_timeout
        self._abilities, self._abilities_until = Abilities(), -math.inf
        self._probe: asyncio.Task[None] | None = None
        self._probed_at = -math.inf

    async def sees(self) -> bool:
        """Whether the model sees pictures: by VISION, or else by what its server reported last."""
        if self._settings.vision is not None:
            return self._settings.vision
        return (await self._reported(waits=PROBE_SECONDS)).sees

    async def takes_tools(self) -> bool | None:
        """Whether the model takes tools: by TOOLS, or else by what its server reported last.

        None if it has reported nothing. That it may have changed holds no question up.
        """
        if self._settings.tools is not None:
            return self._settings.tools
        now, is_first = asyncio.get_running_loop().time(), self._probe is None
        if not is_first and now < self._probed_at + VALID_SECONDS:
            return self._abilities.takes_tools
        return (await self._reported(waits=_FIRST_REPORT if is_first else 0.0)).takes_tools

    async def _reported(self, *, waits: float) -> Abilities:
        """Return what was reported last; wait so long if the server is asked again."""
        now = asyncio.get_running_loop().time()
        if now > self._abilities_until:
            if self._probe is None or self._probe.done():
                self._probe, self._probed_at = asyncio.create_task(self._ask()), now
            await asyncio.wait([self._probe], timeout=waits)
        return self._abilities

    async def aclose(self) -> None:
        """End a question to the server, before its connection closes."""
        if self._probe:
            await cancelled(self._probe)

    async def _ask(self) -> None:
        if found := await fetch_abilities(self._connection):
            seconds = VALID_SECONDS if self._server.own else _CATALOGUE_SECONDS
            self._abilities = found
            self._abilities_until = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        deadline: float = math.inf,
        preferences: Preferences = NOTHING_CHOSEN,
        on_thought: OnThought | None = None,
    ) -> AsyncIterator[Answer]:
        """Send a prompt and wait for the first visible delta. Raises ModelError.

        The deltas end with AnswerCut at MAX_TOKENS, at the end of the model's context, or after
        more characters than MAX_TOKENS tokens can have. The `preferences` may set the temperature
        and shorten the answer.
        """
        settings, now = self._settings, asyncio.get_running_loop().time()
        think = on_thought or _ignored
        think(None)
        deadline = min(deadline, now + settings.reply_timeout)
        with RequestMetrics(self.name) as metrics:
            most = min(preferences.max_tokens or settings.max_tokens, settings.max_tokens)
            chosen = preferences.temperature
            request = _Request(
                prompt,
                tools,
                max_tokens=most,
                temperature=settings.temperature if chosen is None else chosen,
                model=self._model,
                with_usage=self._takes_usage,
                folds_system=self._takes_system is False,
            )
            stream = await self._within(deadline, self._send(request))
            with closing(stream):
                reading = self._deltas(
                    stream, metrics, deadline, most, has_tools=bool(tools), think=think
                )
                async with aclosing(reading) as deltas:
                    answer = Answer(await anext(deltas), deltas)
                    try:
                        yield answer
                    finally:
                        answer.prompt_tokens = metrics.prompt_tokens
                        answer.answer_tokens = metrics.answer_tokens

    async def _send(self, request: _Request) -> EventStream:
        """Send a request, adjusted as needed. Raises the last ModelError if all are refused."""
        while True:
            try:
                events = await self._post(request)
            except ModelError as error:
                request = await self._adjusted(request, error)
            else:
                self._learn(request)
                return events

    async def _adjusted(self, request: _Request, error: ModelError) -> _Request:
        """Return the request to send after a refusal. Raises the error if it is final."""
        match error:
            case ModelUnknown() if self._may_rename and not request.is_renamed:
                # MODEL_ID's name at the server, or that of its only model.
                name = (await fetch_server_info(self._connection)).name_for(self._server.model)
                if name and name != request.model:
                    return replace(request, model=name, is_renamed=True)
            case UsageRefused() if request.with_usage:
                return replace(request, with_usage=False)
            case SystemRefused() if request.has_system:
                return replace(request, folds_system=True)
        raise error

    def _learn(self, request: _Request) -> None:
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

    async def _post(self, request: _Request) -> EventStream:
        if not self._server.own and is_offline_mode():
            raise self._server.failure("offline", "is not asked offline")
        composer = _Composer(base_url=self._server.url, api_key=self._server.key)
        messages = without_system(request.prompt) if request.folds_system else request.prompt
        options = ChatCompletionInputStreamOptions(include_usage=True)
        await composer.chat_completion(
            [_written(message) for message in messages],
            model=request.model,
            stream=True,
            stream_options=options if request.with_usage else None,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=self._settings.top_p,
            tools=written_tools(request.tools) or None,
        )
        composed = composer.request
        return await self._connection.open_stream(
            composed.url,
            headers=composed.headers,
            body=composed.json,
            pictures=[picture for message in messages for picture in message.pictures],
        )

    async def _deltas(
        self,
        stream: EventStream,
        metrics: RequestMetrics,
        deadline: float,
        max_tokens: int,
        *,
        has_tools: bool,
        think: OnThought,
    ) -> AsyncGenerator[str | ToolCall, None]:
        """Yield non-empty deltas; leading white space is part of the first visible one."""
        unseen = finish = last = ""
        answer, calls = ReasoningFilter(), CallReader()
        has_begun = has_word = False
        room = _RUN_LENGTH + _TOKEN_LENGTH * max_tokens  # characters
        while not (finish or stream.ended):
            events = await self._within(deadline, stream.read_events())
            for event in events:
                if finish:
                    metrics.add_usage(_usage(event))
                    continue
                delta, thought, pieces, finish, usage = self._read(event)
                metrics.add_usage(usage)
                room -= calls.add(pieces) + len(thought)
                is_endless = len(delta) > room
                delta = delta[: max(room, 0)]
                room -= len(delta)
                delta = answer.add(delta)
                if thought := thought + answer.thought:
                    think(thought)
                if not has_begun:
                    unseen += delta
                    has_word = has_word or is_visible(delta)
                    has_begun = has_word and not (has_tools and may_be_spelled(unseen))
                    delta = unseen if has_begun else ""
                if delta:
                    metrics.add_text()
                    if clean := without_marks(delta, last=last):
                        yield clean
                    last = delta
                if is_endless:
                    limit = f"more than MAX_TOKENS={max_tokens} tokens can have"
                    if has_begun:
                        raise AnswerCut(f"{self._server} sent {limit}")
                    if has_word:
                        raise self._spelled_calls()
                    if unseen or answer.rest():
                        happened = f"sent nothing but white space, {limit}"
                        raise self._server.failure("empty", happened)
                    raise self._server.failure("thought", f"sent only thoughts or calls, {limit}")
        rest = answer.rest()  # begins like a mark of the filter, so it has none of ours
        if not has_begun and has_word and not is_spelled(unseen):
            rest = unseen + rest
        if is_visible(rest):
            has_begun = True
            metrics.add_text()
            yield rest
        for event in await stream.read_tail():
            metrics.add_usage(_usage(event))
        if finish == "error" or not (finish or stream.done):
            raise self._server.failure("endless", "broke the answer off")
        if finish == "length" and has_begun:
            raise AnswerCut(f"{self._server} reached MAX_TOKENS={max_tokens}")
        if calls and has_tools and finish != "length":
            metrics.add_text()
            for call in calls.calls():
                yield call
        elif has_word and not has_begun:
            raise self._spelled_calls()
        elif not has_begun:
            name = "thought" if finish == "length" else "empty"
            raise self._server.failure(name, "ended its answer without a word")

    def _spelled_calls(self) -> ToolsRefused:
        return ToolsRefused(f"{self._server} sends the model's calls as text: it has no parser")

    def _read(self, event: bytes) -> tuple[str, str, Json, str, Json]:
        """Return an event's text, thought and pieces of calls, its finish reason, and its usage.

        Text, thought and reason are empty if it has none.
        """
        if not event:
            return "", "", None, "", None
        try:
            chunk = json.loads(event)
            if chunk.get("error") is not None or chunk.get("object") == "error":
                raise self._server.event(chunk)
            # Events with token counts and keep-alives have no choices.
            choice = (chunk.get("choices") or [{}])[0]
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
            if not isinstance(text, str):
                # Magistral's parts; those of the type "thinking" are no part of the answer.
                text = "".join(part["text"] for part in text if part.get("type") == "text")
            reason = choice.get("finish_reason") or ""
            return text, thought_in(delta), delta.get("tool_calls"), reason, chunk.get("usage")
        except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:
            raise self._server.failure("garbage", "sent a line that cannot be read") from error

    async def _within(self, deadline: float, waiting: Awaitable[_T]) -> _T:
        """Wait until the deadline or the end of the idle time-out. Raises ModelSilent."""
        idle_until = asyncio.get_running_loop().time() + self._idle_timeout
        try:
            async with asyncio.timeout_at(min(idle_until, deadline)):
                return await waiting
        except TimeoutError as error:
            if idle_until < deadline:
                happened = f"said nothing for {self._idle_timeout:g} s"
                raise self._server.failure("silence", happened) from error
            happened = f"did not end its answer in {self._settings.reply_timeout:g} s"
            raise self._server.failure("slow", happened) from error


class _Composer(AsyncInferenceClient):
    """Composes one request and returns it instead of sending it."""

    request: Any  # huggingface_hub.inference._common.RequestParameters

    async def _inner_post(self, request_parameters: Any, *, stream: bool = False) -> bytes:  # type: ignore[override]
        self.request = request_parameters
        return b""


def _written(message: Message) -> dict[str, Any]:
    """Return a message as a request has it."""
    if call := message.call:
        # Templates of Mistral demand the name.
        named = {"tool_call_id": call.id, "name": call.name}
        return {"role": "tool", "content": message.text, **named}
    if not message.calls:
        return {"role": message.role, "content": _content(message)}
    # Templates of Mistral refuse an empty content beside calls.
    content = {"content": message.text} if message.text else {}
    return {"role": "assistant", **content, "tool_calls": [*map(written_call, message.calls)]}


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Return a message's text, after its pictures with their names; their data comes later."""
    parts: list[dict[str, Any]] = []
    for one in message.files:
        if one.picture:
            address = {"url": f"data:{one.picture.media_type};base64,"}
            parts.append({"type": "text", "text": label(one)})
            parts.append({"type": "image_url", "image_url": address})
    return [*parts, {"type": "text", "text": message.text}] if parts else message.text


def _ignored(thought: str | None) -> None:
    """Ignore what the model thinks."""


def _usage(event: bytes) -> Json:
    """Return the token counts in an event after the end of the text; its form is not trusted."""
    with suppress(ValueError, AttributeError, RecursionError):
        usage: Json = json.loads(event).get("usage")
        return usage
    return None


class RequestMetrics:
    """The metrics of one request, recorded when its block ends; a cancelled one is no failure."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._sent_at = self._first_at = self._last_at = 0.0
        self.prompt_tokens: int | None = None  # None: the server has not reported it
        self.answer_tokens = 0

    def __enter__(self) -> Self:
        self._sent_at = time.monotonic()
        self._span = span("model", model=self._model)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, AnswerCut):
            error = None
        if isinstance(error, ModelError):
            _FAILED.labels(self._model, type(error).__name__).inc()
        if self._first_at:
            self._span.note(first_text=self._first_at - self._sent_at)
        if self.prompt_tokens is not None:
            self._span.note(read=self.prompt_tokens, written=self.answer_tokens)
        self._span.end(error)
        if self.prompt_tokens is None:
            return
        _TOKENS.labels(self._model, "in").inc(self.prompt_tokens)
        _TOKENS.labels(self._model, "out").inc(self.answer_tokens)
        seconds = self._last_at - self._first_at
        # The time begins with the first token.
        if self.answer_tokens > 1 and seconds > 0:
            _SPEED.labels(self._model).observe((self.answer_tokens - 1) / seconds)

    def add_text(self) -> None:
        """Record that text was received."""
        self._last_at = time.monotonic()
        if not self._first_at:
            self._first_at = self._last_at
            _FIRST.labels(self._model).observe(self._first_at - self._sent_at)

    def add_usage(self, usage: Json) -> None:
        """Record reported token counts; if every event has them, the last ones count."""
        if isinstance(usage, dict) and is_count(read := usage.get("prompt_tokens")):
            written = usage.get("completion_tokens")
            self.prompt_tokens, self.answer_tokens = read, written if is_count(written) else 0
