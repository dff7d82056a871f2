"""The process that runs a model with transformers, behind an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import IO, Any

import torch
from aiohttp import web

from bot.domain import Json, Message
from bot.errors import CannotStart, PromptRefused, PromptTooLong
from bot.local import hardware
from bot.local.transformers_generation import AnswerStreamer, Plan, TorchModel, make_plan

_MAX_SLOTS = 4  # answers generated at once; further ones wait
_MAX_BODY_BYTES = 16 * 2**20

Event = Mapping[str, Json]


def main() -> None:
    """Serve the model in the first line of standard input, until standard input ends."""
    # Libraries print to standard output, which is reserved for messages.
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        plan = make_plan(
            name=request["name"],
            token=request["token"] or None,
            context_tokens=request["context_tokens"],
            max_tokens=request["max_tokens"],
        )
    except CannotStart as error:
        _send(messages, error=str(error))
        os._exit(1)
    asyncio.run(_serve(plan, request, messages))


def _end_with_parent() -> None:
    # Every system closes the pipe when the parent dies.
    sys.stdin.read()
    # Without waiting for computing threads.
    os._exit(0)


def _send(messages: IO[str], **message: Json) -> None:
    print(json.dumps(message), file=messages, flush=True)


async def _serve(plan: Plan, request: Mapping[str, Any], messages: IO[str]) -> None:
    cores = hardware.cores()
    slots = min(cores, _MAX_SLOTS)
    # One core for each answer: more threads for each were slower in all (bench/transformers.py).
    torch.set_num_threads(max(1, cores // slots))
    endpoint = _Endpoint(plan, key=request["api_key"], slots=slots)
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    app.router.add_get("/props", _report)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", request["port"]).start()
    _send(
        messages,
        port=runner.addresses[0][1],
        prompt_tokens=plan.prompt_tokens,
        max_tokens=plan.max_tokens,
        is_dialogue=plan.is_dialogue,
        plan=str(plan),
    )
    try:
        await endpoint.load()
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)
    await asyncio.Event().wait()


class _Endpoint:
    """Accepts requests at once; early ones wait until the weights are read."""

    def __init__(self, plan: Plan, *, key: str, slots: int) -> None:
        self._plan = plan
        self._key = key
        # First come, first served: it has a queue.
        self._pool = ThreadPoolExecutor(slots)
        self._model: asyncio.Future[TorchModel] = asyncio.get_running_loop().create_future()

    async def load(self) -> None:
        self._model.set_result(await asyncio.to_thread(TorchModel.load, self._plan))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return _error_response(401, "authentication_error", "wrong key")
        body = await request.json()
        messages = [Message(each["role"], each["content"]) for each in body["messages"]]
        try:
            prompt = self._plan.encode(messages)
        except PromptTooLong as error:
            return _error_response(400, "exceed_context_size_error", str(error))
        except PromptRefused as error:
            return _error_response(400, "invalid_request_error", str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async with aclosing(self._events(prompt, body)) as events:
            async for event in events:
                await response.write(event)
        return response

    async def _events(
        self, prompt: list[int], body: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """Yield an answer's events; closing the generator cancels the answer."""
        texts: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def on_text(text: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, text)

        answer = AnswerStreamer(self._plan, limit=body["max_tokens"], on_text=on_text)
        generating = asyncio.create_task(self._generate(prompt, answer, body))
        generating.add_done_callback(lambda _: texts.put_nowait(None))
        try:
            while (text := await texts.get()) is not None:
                choice: Json = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                yield _event({"choices": [choice]})
            yield _event(_last_event(generating, answer, len(prompt)))
            yield b"data: [DONE]\n\n"
        finally:
            answer.cancel()
            generating.cancel()

    async def _generate(
        self, prompt: list[int], answer: AnswerStreamer, body: Mapping[str, Any]
    ) -> str:
        model = await asyncio.shield(self._model)
        temperature, top_p = body.get("temperature"), body.get("top_p")
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: model.generate(prompt, answer, temperature=temperature, top_p=top_p)
        )


async def _report(_: web.Request) -> web.Response:
    """Report, as llama.cpp does, that the model takes no tools."""
    return web.json_response({"chat_template_caps": {"supports_tools": False}})


def _last_event(generating: asyncio.Task[str], answer: AnswerStreamer, prompt_tokens: int) -> Event:
    if error := generating.exception():
        sys.stderr.write(f"{error}\n")
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        kind = "out_of_memory" if is_memory else type(error).__name__
        return {"error": {"type": kind, "message": "the answer could not be computed"}}
    return {
        "choices": [{"index": 0, "delta": {}, "finish_reason": generating.result()}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(answer.tokens)},
    }


def _event(event: Event) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _error_response(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


if __name__ == "__main__":
    main()
