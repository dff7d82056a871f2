"""What the embedded model is to run on, and the sentences that say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.local.gguf import Gguf
from bot.local.launch_request import Device, LaunchRequest

# llama.cpp and Python, without model and contexts: SmolLM2-135M took 65 MB, by measurement.
_BASE_BYTES = 64_000_000
# The builds that xllamacpp 2026.10 names in its README, "Installation".
_WHEELS = "https://xorbitsai.github.io/xllamacpp/whl/"
_BUILDS = {"NVIDIA": "cu128", "AMD": "rocm-6.4.1"}
# What llama.cpp says of a file or a machine that it cannot load on, in the words of its source at
# xllamacpp 2026.10, and what helps.
_CURES = (
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
)
_NO_MEMORY = r"out of memory|(unable|failed) to allocate|ErrorOutOfDeviceMemory"


@dataclass(frozen=True, slots=True)
class Need:
    """What a model needs of the machine's own memory, in bytes; a GPU has its own."""

    weights: int
    contexts: int
    token: int  # a token of context in every conversation
    exact: bool

    @property
    def least(self) -> int:
        """What cannot be given up again; the file's pages can."""
        return self.contexts + _BASE_BYTES

    @property
    def whole(self) -> int:
        """Everything."""
        return self.weights + self.least


def uses_gpu(order: LaunchRequest, devices: Iterable[Device]) -> bool:
    """Say whether layers go to a GPU."""
    return order.gpu_layers != 0 and any("GPU" in device.kind for device in devices)


def need(model: Gguf, order: LaunchRequest, devices: Iterable[Device]) -> Need:
    """Return what the model needs of the machine's memory; on a GPU llama.cpp takes what fits."""
    kept = model.layers
    if uses_gpu(order, devices):
        kept = 0 if order.gpu_layers is None else max(0, kept - order.gpu_layers)
    contexts = model.context_bytes(tokens=order.context_tokens, parallel=order.parallel)
    return Need(
        weights=model.file_bytes * kept // model.layers,
        contexts=contexts * kept // model.layers,
        token=model.token_bytes * order.parallel * kept // model.layers,
        exact=model.exact,
    )


def shortage(need: Need, order: LaunchRequest, *, free: int | None) -> tuple[str, bool]:
    """Return a sentence about memory that is missing, or "", and whether it cannot work so."""
    if free is None or need.whole <= free:
        return "", False
    told = (
        f"the model needs {_size(need.whole)} of memory ({_size(need.weights)} for its file,"
        f" {_size(need.contexts)} for {order.parallel} conversations of {order.context_tokens}"
        f" tokens) and {_size(free)} are free"
    )
    cure = f"{_smaller_context(need, free)}a smaller quantization or a smaller model"
    if need.least > free and need.exact:
        return f"{told}: take {cure}", True
    return f"{told}: it may be slow, or be ended by the system; {cure} would help", False


def _smaller_context(need: Need, free: int) -> str:
    fits = (free - need.weights - _BASE_BYTES) // need.token // 256 * 256 if need.token else 0
    return f"CONTEXT_TOKENS={fits}, " if fits >= 1024 else ""


def lacking(order: LaunchRequest, devices: Iterable[Device], *, maker: str | None) -> str:
    """Return a sentence about a GPU that was asked for, or is here, and is not used; or ""."""
    if order.gpu_layers == 0 or uses_gpu(order, devices):
        return ""
    if maker:
        return (
            f"This machine has a GPU of {maker}, which the installed xllamacpp cannot use: PyPI's"
            " is built for the CPU. One for the GPU comes with `.venv/bin/python -m pip install"
            f" --force-reinstall --no-deps xllamacpp --index-url {_WHEELS}{_BUILDS[maker]}`"
            " (other drivers: https://github.com/xorbitsai/xllamacpp); GPU_LAYERS=0 says that the"
            " CPU is meant"
        )
    if order.gpu_layers:
        return (
            "GPU_LAYERS has no effect: the installed xllamacpp finds no GPU"
            f" (PyPI's is built for the CPU; builds for GPUs are at {_WHEELS})"
        )
    return ""


def chosen(
    model: Gguf,
    order: LaunchRequest,
    devices: Sequence[Device],
    *,
    on_gpu: int | None,
    memory: int | None,
    seconds: float,
) -> str:
    """Return the line that says what runs where; `on_gpu` layers, None where nobody knows."""
    gpus = [device for device in devices if "GPU" in device.kind]
    used = gpus if uses_gpu(order, devices) else [it for it in devices if it.kind == "CPU"]
    names = " and ".join(f"{it.name} ({it.description})" for it in used) or "the CPU"
    layers = f"{'an unknown number' if on_gpu is None else on_gpu} of {model.layers}"
    taken = f", {_size(memory)} of memory" if memory else ""
    return (
        f"The embedded model runs on {names}: {layers} layers on a GPU, {order.threads}"
        f" thread{'s' * (order.threads > 1)}, {order.parallel} conversations at once with"
        f" {order.context_tokens} tokens each{taken}; loaded in {seconds:.1f} s"
    )


def complaint(words: Sequence[str], *, gpu: bool) -> str:
    """Return why llama.cpp did not start, by its own words, and what helps."""
    errors = [line.partition(" E ")[2] for line in words if " E " in line]
    # The later ones follow from the first.
    first = (errors or list(words[-1:]) or ["it gave no reason"])[0]
    said = "\n".join(errors)
    for pattern, cure in _CURES:
        if re.search(pattern, said):
            return f"{cure} (llama.cpp: {first})"
    if re.search(_NO_MEMORY, said):
        where = "the GPU has" if gpu else "there is"
        less = "GPU_LAYERS=auto or a lower number, " if gpu else ""
        return (
            f"{where} too little memory: {less}a lower CONTEXT_TOKENS or a smaller quantization"
            f" helps (llama.cpp: {first})"
        )
    return f"{first}; check LOCAL_MODEL_PATH, GPU_LAYERS and CONTEXT_TOKENS"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
