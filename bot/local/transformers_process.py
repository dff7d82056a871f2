"""The process that runs a model with transformers: its door, in the words of OpenAI's API.

A process of its own, because importing torch and loading weights hold Python's lock for longer than
a chat can wait, because a prompt that is being read can only be stopped by killing it, and because
memory that runs out takes nothing else along. `bot/local/transformers_model.py` starts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import IO, Any

import torch
from aiohttp import web

from bot.domain import Json, Message
from bot.errors import CannotStart, PromptRefused, PromptTooLong
from bot.local import hardware
from bot.local.transformers_generation import Answer, Plan, TorchModel, plan

_SIGN_SECONDS = 15.0  # between two signs of life while a prompt is read; the bot waits for 60
_MOST_SLOTS = 4  # answers that are written at once; further ones wait their turn
_LARGEST_BODY = 16 * 2**20

Event = Mapping[str, Json]


def main() -> None:
    """Serve what the first line of standard input orders, until standard input ends."""
    # Nothing that a library prints may come between: from here on standard output is ours.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = plan(
            name=order["name"],
            token=order["token"] or None,
            context_tokens=order["context_tokens"],
            max_tokens=order["max_tokens"],
        )
    except CannotStart as error:
        _tell(answers, error=str(error))
        os._exit(1)
    asyncio.run(_serve(found, order, answers))


def _end_with_parent() -> None:
    # The end of file comes from the kernel when our parent dies, of whatever, on every system.
    sys.stdin.read()
    # Without waiting for threads that compute.
    os._exit(0)


def _tell(answers: IO[str], **told: Json) -> None:
    print(json.dumps(told), file=answers, flush=True)


async def _serve(found: Plan, order: Mapping[str, Any], answers: IO[str]) -> None:
    cores = hardware.cores()
    slots = min(cores, _MOST_SLOTS)
    # Each answer on its own core: more threads for each were slower in all (bench/transformers.py).
    torch.set_num_threads(max(1, cores // slots))
    door = _Door(found, key=order["api_key"], slots=slots)
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_post("/v1/chat/completions", door.answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", order["port"]).start()
    _tell(
        answers,
        port=runner.addresses[0][1],
        prompt_tokens=found.prompt_tokens,
        max_tokens=found.max_tokens,
        is_dialogue=found.is_dialogue,
    )
    try:
        await door.load()
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)
    _tell(answers, loaded=str(found))
    await asyncio.Event().wait()


class _Door:
    """Takes requests at once; those that come before the weights wait for them."""

    def __init__(self, found: Plan, *, key: str, slots: int) -> None:
        self._plan = found
        self._key = key
        # First come, first served: it has a queue.
        self._pool = ThreadPoolExecutor(slots)
        self._model: asyncio.Future[TorchModel] = asyncio.get_running_loop().create_future()

    async def load(self) -> None:
        self._model.set_result(await asyncio.to_thread(TorchModel.load, self._plan))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return _refusal(401, "authentication_error", "wrong key")
        body = await request.json()
        messages = [Message(each["role"], each["content"]) for each in body["messages"]]
        try:
            prompt = self._plan.tokens(messages)
        except PromptTooLong as error:
            return _refusal(400, "exceed_context_size_error", str(error))
        except PromptRefused as error:
            return _refusal(400, "invalid_request_error", str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async with aclosing(self._parts(prompt, body)) as parts:
            async for part in parts:
                await response.write(part)
        return response

    async def _parts(
        self, prompt: list[int], body: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """Yield what goes out; left early, it has the answer stopped."""
        said: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(words: str) -> None:
            loop.call_soon_threadsafe(said.put_nowait, words)

        answer = Answer(self._plan, limit=body["max_tokens"], say=say)
        writing = asyncio.create_task(self._write(prompt, answer, body))
        writing.add_done_callback(lambda _: said.put_nowait(None))
        try:
            while (words := await _soon(said)) is not None:
                yield _event(_chunk(words)) if words else b": still thinking\n\n"
            yield _event(_last(writing, answer, len(prompt)))
            yield b"data: [DONE]\n\n"
        finally:
            answer.leave()
            writing.cancel()

    async def _write(self, prompt: list[int], answer: Answer, body: Mapping[str, Any]) -> str:
        model = await asyncio.shield(self._model)
        temperature, top_p = body.get("temperature"), body.get("top_p")
        return await asyncio.get_running_loop().run_in_executor(
            self._pool,
            lambda: model.write(prompt, answer, temperature=temperature, top_p=top_p),
        )


async def _soon(said: asyncio.Queue[str | None]) -> str | None:
    """Return the next words; "" when none come soon, None at the end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SIGN_SECONDS):
            return await said.get()
    return ""


def _chunk(words: str) -> Event:
    return {"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": None}]}


def _last(writing: asyncio.Task[str], answer: Answer, prompt_tokens: int) -> Event:
    if error := writing.exception():
        sys.stderr.write(f"{error}\n")
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        kind = "out_of_memory" if is_memory else type(error).__name__
        return {"error": {"type": kind, "message": "the answer could not be computed"}}
    return {
        "choices": [{"index": 0, "delta": {}, "finish_reason": writing.result()}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": answer.written},
    }


def _event(event: Event) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _refusal(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


if __name__ == "__main__":
    main()
