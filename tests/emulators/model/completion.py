"""One answer on its way to a client: to its end or to where it breaks."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import Behaviour
from tests.emulators.model.dialect import Dialect, Object
from tests.emulators.model.faults import Fault
from tests.emulators.model.speech import Piece
from tests.emulators.model.wire import Stream, cut
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
            await self._break(fault)
            return False
        if self._dialect.opening is not None:
            await self._stream.choose(self._dialect.opening)
        for piece in self._speech.pieces:
            if fault is not None and len(self._asked.deltas) == fault.at_delta:
                break
            await piece.rest()
            await self._say(piece)
        if fault is not None:
            await self._break(fault)
        return fault is None

    async def _say(self, piece: Piece) -> None:
        at = time.monotonic()
        await self._stream.choose({**self._dialect.chorus, "content": piece.text})
        self._asked.deltas.append(Delta(at, piece.text))

    async def _break(self, fault: Fault) -> None:
        """Let the stream go wrong."""
        match fault.how:
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

    async def _end(self) -> None:
        await self._stream.choose({}, finish_reason=self._finish_reason())
        options = self._asked.body.get("stream_options")
        if self._behaviour.usage or (isinstance(options, dict) and options.get("include_usage")):
            await self._stream.say(usage=self._usage())
        await self._stream.line(self._behaviour.done)
        await self._stream.response.write_eof()

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
