"""How the emulated model behaves, all that a test may change, and what it says in its limits."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bot.domain import Json
from tests.emulators.model.asked import Asked
from tests.emulators.model.servers import Need, Served

_TOKEN = re.compile(r"\s*<\|\w+\|>|\s*\w+|\s*[^\w\s]|\s+")


def tokens(text: str) -> list[str]:
    """Return the tokens of a text, few enough to count by hand; joined they are the text again.

    A token is a word, a mark or one of the template's `<|signs|>`, with the white space before it;
    white space at the end is one more.
    """
    return _TOKEN.findall(text)


def render(messages: Iterable[Mapping[str, object]]) -> str:
    """Return the text that the model continues, in ChatML; its tokens are those of the prompt."""
    turns = [f"<|im_start|>{each['role']}\n{_said(each)}<|im_end|>\n" for each in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def _said(message: Mapping[str, object]) -> str:
    calls = message.get("tool_calls")
    return f"{message.get('content', '')}{json.dumps(calls) if calls else ''}"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk of a stream brings, `pause` seconds after the chunk before.

    An event in its place holds the chunk back until it is set.
    """

    pause: float | asyncio.Event
    text: str

    async def rest(self) -> None:
        """Return when the chunk may go."""
        if isinstance(self.pause, asyncio.Event):
            await self.pause.wait()
        else:
            await asyncio.sleep(self.pause)


# Pauses and texts.
Script = Sequence[tuple[float | asyncio.Event, str]]


@dataclass(frozen=True, slots=True)
class Calls:
    """An answer that ends with calls of tools: their names and arguments, after a text."""

    calls: Sequence[tuple[str, str]]
    text: str = ""


Answer = str | Script | Calls


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer that keeps to its limit."""

    pieces: list[Piece]
    tokens: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    calls: Sequence[tuple[str, str]] = ()


def pieces(answer: Answer, *, chunk: int, first_delay: float, delay: float) -> list[Piece]:
    """Return a script's own pieces, or a text in pieces of `chunk` characters."""
    if isinstance(answer, Calls):
        answer = answer.text
    if isinstance(answer, str):
        return [
            Piece(delay if start else first_delay, answer[start : start + chunk])
            for start in range(0, len(answer), chunk)
        ]
    return [Piece(*piece) for piece in answer]


def speak(script: Sequence[Piece], *, limit: int | None) -> Speech:
    """Return what is said of a script, no more than `limit` tokens.

    As with real servers an answer that reaches its limit counts as cut, even if it was to end there
    anyway: the sign of the end would have been one token more.
    """
    found = tokens("".join(piece.text for piece in script))
    if limit is None or len(found) < limit:
        return Speech([*script], len(found), "stop")
    return Speech(_beginning(script, len("".join(found[:limit]))), limit, "length")


def _beginning(script: Sequence[Piece], length: int) -> list[Piece]:
    """Return the pieces up to `length` characters."""
    kept: list[Piece] = []
    for piece in script:
        if piece.text and length <= 0:
            break
        kept.append(replace(piece, text=piece.text[:length]))
        length -= len(piece.text)
    return kept


def echo(messages: list[dict[str, str]]) -> str:
    """Answer with the last thing that a user said."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    return f"You said: {said[-1] if said else ''}"


@dataclass(eq=False)
class Behaviour:
    """What the model says, how fast, and what it asks of its callers.

    `answer` is a text, a script, or a function of the messages that returns one of them. A text
    travels in deltas of `chunk` characters, the first `first_delay` seconds after the headers and
    the others `delay` seconds apart; a script has its own pieces and pauses. What is said ends
    where the request's `max_tokens` or the context end it.
    `finish_reason` and the line `done` end a stream. `thoughts` come before the answer, as this
    model's, in the field `thinks_in` of the deltas; no limit counts them.

    `says_once` and `says_each` are tokens that its template has beyond ChatML, in all and around
    each message; `says_each_picture` are those of a picture. `models` are those that are served,
    and `context` is what fits into each, in tokens; those in `seeing` see pictures, and those in
    `calling` take tools. `api_key`
    is the key that callers need; `providers` run the models and `permissions` are those of the
    caller's token (both the router's). `refuses` are fields of the API that this server does not
    know, and `names_them` says whether its refusal tells which.
    `latency` is in seconds per call, half of them before anything happens.
    """

    answer: Answer | Callable[[list[dict[str, str]]], Answer] = echo
    chunk: int = 8
    thoughts: Answer | Callable[[list[dict[str, str]]], Answer] = ""
    thinks_in: str = "reasoning_content"
    delay: float = 0.0
    first_delay: float = 0.0
    finish_reason: str | None = "stop"
    done: str = "data: [DONE]"
    says_once: int = 0
    says_each: int = 0
    says_each_picture: int = 100
    models: Sequence[str] = ("emulated",)
    context: int | None = None
    api_key: str | None = None
    providers: Mapping[str, str] = field(default_factory=lambda: {"emulated": "live"})
    permissions: Sequence[str] | None = None
    refuses: Sequence[str] = ()
    names_them: bool = True
    latency: float = 0.0
    seeing: Sequence[str] = ()
    calling: Sequence[str] = ()
    pricing: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def served(self) -> Served:
        return Served(
            self.models,
            self.context,
            self.providers,
            self.permissions,
            self.seeing,
            self.calling,
            self.pricing,
        )

    def say(self, messages: list[dict[str, str]]) -> Answer:
        """Return the answer to these messages."""
        return self.answer(messages) if callable(self.answer) else self.answer

    def thought(self, asked: Asked) -> list[Piece]:
        """Return what the model thinks before it answers a request."""
        said = self.thoughts(asked.messages) if callable(self.thoughts) else self.thoughts
        return pieces(said, chunk=self.chunk, first_delay=self.first_delay, delay=self.delay)

    def need(self, asked: Asked) -> Need:
        """Return the tokens that a request takes of the context."""
        more = self.says_once + self.says_each * len(asked.sent)
        more += self.says_each_picture * len(asked.pictures)
        if tools := asked.body.get("tools"):
            more += len(tokens(json.dumps(tools)))
        prompt = more + len(tokens(render(asked.sent))) - asked.unread
        return Need(prompt, _limit(asked.body))

    def speech(self, asked: Asked) -> Speech:
        """Return what the model says to a request, within all limits."""
        answer = self.say(asked.messages)
        script = pieces(
            answer,
            chunk=self.chunk,
            first_delay=self.first_delay,
            delay=self.delay,
        )
        need = self.need(asked)
        room = None if self.context is None else self.context - need.prompt
        limit = min((each for each in (need.answer, room) if each is not None), default=None)
        speech = speak(script, limit=limit)
        if isinstance(answer, Calls) and speech.finish_reason == "stop":
            return replace(speech, calls=answer.calls, finish_reason="tool_calls")
        return speech


def _limit(body: dict[str, Json]) -> int | None:
    limit = body.get("max_tokens")
    return limit if isinstance(limit, int) else None
