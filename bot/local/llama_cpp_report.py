"""The sentences about the embedded model that an operator reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bot.local.llama_cpp_process import Device, LaunchRequest

# The builds that xllamacpp 2026.10 names in its README, "Installation".
_WHEELS = "https://xorbitsai.github.io/xllamacpp/whl/"
_BUILDS = {"NVIDIA": "cu128", "AMD": "rocm-6.4.1"}
MEMORY_HINT = "a lower CONTEXT_TOKENS, a smaller file or GPU_LAYERS=auto may help"
# What llama.cpp logs if it cannot load a model, in the words of its source at xllamacpp 2026.10,
# and what helps.
_REMEDIES = (
    (r"couldn't bind", "another program has its port"),
    (
        r"within the file bounds|failed to read|read error",
        "the file is damaged or was not downloaded to its end: download it again",
    ),
    (
        r"unknown model architecture|unknown pre-tokenizer|invalid ggml type|missing tensor",
        "the file is newer than the installed llama.cpp, or not for it:"
        " `pip install --upgrade xllamacpp`, or take another file of this model",
    ),
    (
        r"out of memory|(unable|failed) to allocate|ErrorOutOfDeviceMemory|std::bad_alloc",
        f"the memory of this machine or its GPU does not suffice: {MEMORY_HINT}",
    ),
)


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


def startup_summary(
    request: LaunchRequest,
    devices: Sequence[Device],
    *,
    context_tokens: int,
    gpu_layers: str | None,
    memory: int | None,
    seconds: float,
) -> str:
    """Return the line that says what runs where; `gpu_layers` is such as "20 of 33", if known."""
    on_gpu = uses_gpu(request, devices)
    used = [each for each in devices if (each.is_gpu if on_gpu else each.kind == "CPU")]
    names = " and ".join(f"{each.name} ({each.description})" for each in used) or "the CPU"
    layers = f" with {gpu_layers or 'an unknown number of'} layers" if on_gpu else ""
    threads = f"{request.threads} thread{'s' * (request.threads > 1)}"
    taken = f", {memory / 1e9:.1f} GB of memory" if memory else ""
    return (
        f"The embedded model runs on {names}{layers}: {threads}, {request.parallel} conversations"
        f" at once with {context_tokens} tokens each{taken}; loaded in {seconds:.1f} s"
    )


def load_error(lines: Sequence[str]) -> str:
    """Return why llama.cpp did not start, from what it logged, and what helps."""
    errors = [line.partition(" E ")[2] for line in lines if " E " in line]
    # Later errors follow from the first.
    first = (errors or list(lines[-1:]) or ["it gave no reason"])[0]
    logged = "\n".join(errors or [first])
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, logged):
            return f"{remedy} (llama.cpp: {first})"
    return f"{first}; check LOCAL_MODEL_PATH, GPU_LAYERS and CONTEXT_TOKENS"
