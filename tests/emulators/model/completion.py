"""One answer on its way to a client: streamed or whole, to its end or to where it breaks."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from bot.domain import Json
from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import Behaviour
from tests.emulators.model.dialect import Dialect, Object
from tests.emulators.model.faults import Fault
from tests.emulators.model.speech import Piece
from tests.emulators.model.wire import Stream, cut, head, plain
from tests.emulators.timeline import Delta

_GARBAGE = '{"choices": ['


class Completion:
    """What the model says to one request."""

    def __init__(
        self,
        request: web.Request,
        asked: Asked,
        *,
        behaviour: Behaviour,
        dialect: Dialect,
        fault: Fault | None,
        closing: asyncio.Event,
    ) -> None:
        self._request = request
        self._asked = asked
        self._behaviour = behaviour
        self._dialect = dialect
        self._fault = fault
        self._closing = closing
        self._speech = behaviour.speech(asked)
        self._model = behaviour.served().name
        self._stream = Stream(request, asked, model=self._model)

    async def send(self) -> web.StreamResponse:
        """Answer the request; Asked tells how far it came."""
        await asyncio.sleep(self._behaviour.latency / 2)
        if self._asked.body.get("stream") is not True:
            return await self._send_whole()
        await self._stream.open()
        if not await self._say_all():
            return self._stream.response
        await self._end()
        self._asked.finished = True
        return self._stream.response

    async def _say_all(self) -> bool:
        """Send the deltas; False when the fault ended the stream."""
        fault = self._fault
        if fault is not None and fault.at_delta is None:
            return await self._break(fault)
        if self._dialect.opening is not None:
            await self._stream.choose(self._dialect.opening)
        for piece in self._speech.pieces:
            if fault is not None and len(self._asked.deltas) == fault.at_delta:
                if not await self._break(fault):
                    return False
                fault = None
            await piece.rest()
            await self._say(piece)
        return fault is None or await self._break(fault)

    async def _say(self, piece: Piece) -> None:
        at = time.monotonic()
        match piece.what:
            case "content":
                await self._stream.choose({**self._dialect.chorus, "content": piece.text})
                self._asked.deltas.append(Delta(at, piece.text))
            case "reasoning":
                await self._stream.choose({"reasoning_content": piece.text})
            case "null":
                await self._stream.choose({"content": None})
            case "empty":
                await self._stream.say()
            case "comment":
                await self._stream.line(f": {piece.text}")

    async def _break(self, fault: Fault) -> bool:
        """Let the stream go wrong; True when it was only late."""
        match fault.how:
            case "late":
                await asyncio.sleep(fault.shared.seconds)
                return True
            case "hang":
                await self._closing.wait()
            case "drop" | "reset":
                cut(self._request, reset=fault.how == "reset")
            case "garbage":
                line = _text(fault, _GARBAGE)
                # A body with a field name of its own is the whole line.
                await self._stream.line(line if line.startswith("data:") else f"data: {line}")
            case "error_event" | "status":
                await self._stream.line(f"data: {_text(fault, self._error(fault))}")
        return False

    async def _end(self) -> None:
        await self._stream.choose({}, finish_reason=self._finish_reason())
        options = self._asked.body.get("stream_options")
        if self._behaviour.usage or (isinstance(options, dict) and options.get("include_usage")):
            await self._stream.say(usage=self._usage())
        await self._stream.line(self._behaviour.done)
        await self._stream.response.write_eof()

    async def _send_whole(self) -> web.StreamResponse:
        for piece in self._speech.pieces:
            await piece.rest()
        body = json.dumps(self._whole(), ensure_ascii=False)
        match self._fault:
            case None:
                pass
            case Fault(how="eof"):
                body = body[: len(body) // 2]
            case Fault(how="garbage") as fault:
                body = _text(fault, _GARBAGE)
            case Fault() as fault:
                body = _text(fault, self._error(fault))
        response = plain(200, body, {})
        self._asked.status = response.status
        at = time.monotonic()
        await response.prepare(self._request)
        await response.write_eof()
        if self._fault is None:
            self._asked.deltas.append(Delta(at, self._speech.text("content")))
            self._asked.finished = True
        return response

    def _whole(self) -> Object:
        message: Object = {"role": "assistant", "content": self._speech.text("content")}
        if thought := self._speech.text("reasoning"):
            message["reasoning_content"] = thought
        choice: Json = {"index": 0, "message": message, "finish_reason": self._finish_reason()}
        common = head("chat.completion", self._model)
        return {**common, "choices": [choice], "usage": self._usage()}

    def _finish_reason(self) -> str | None:
        cut = self._speech.finish_reason == "length"
        return "length" if cut else self._behaviour.finish_reason

    def _usage(self) -> Object:
        prompt, answer = self._behaviour.need(self._asked).prompt, self._speech.tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }

    def _error(self, fault: Fault) -> str:
        status = fault.shared.status
        return json.dumps(self._dialect.event(status, f"emulated failure {status}"))


def _text(fault: Fault, usual: str) -> str:
    """Return what a fault sends: a string as it is, anything else as JSON."""
    body = fault.shared.body
    if body is None:
        return usual
    return body if isinstance(body, str) else json.dumps(body)
