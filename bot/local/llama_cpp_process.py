"""The process of the embedded model: it reports devices and its port, as lines of JSON."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

# The cache of idle conversations; llama.cpp's default is 8 GiB.
_CACHE_MIB = 512
# Of a prompt that a CPU reads in one step, which blocks all other answers. llama.cpp's
# default of 2048 is some 18 s on one core with the demo model, and no faster for the prompt.
_CPU_BATCH = 128  # tokens
# Of a picture, on a GPU and on a CPU. llama.cpp decodes it in batches, each in one step: otherwise
# it would end, for models whose attention to pictures is not causal (Gemma).
_PICTURE, _CPU_PICTURE = 1024, 512  # tokens
# For the vocabularies of Mistral Nemo, gpt-oss and others llama.cpp splits a text by std::regex,
# which calls itself for each character of a run (libstdc++): 26,000 of them overflow the usual
# 8 MiB and end the process. Only what is used takes memory.
_STACK_BYTES = 64 * 2**20  # of each thread
_ATTRIBUTES_BYTES = 256  # more than a pthread_attr_t has
_ERRORS = 1  # a level of llama.cpp's log


@dataclass(frozen=True, slots=True)
class Device:
    """A device that llama.cpp can compute on; `kind` is llama.cpp's, such as CPU, GPU or IGPU."""

    name: str
    description: str
    kind: str

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, integrated or not."""
        return "GPU" in self.kind


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """The model to serve; sent on standard input, which `ps` does not show."""

    path: str
    gpu_layers: int | None
    context_tokens: int
    parallel: int
    threads: int
    api_key: str = field(repr=False)
    port: int
    repeat_penalty: float
    mmproj: str = ""  # the file with which the model sees


def _main() -> None:
    # llama.cpp prints to standard output, which is reserved for messages.
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    devices = _devices()
    print(json.dumps({"devices": [asdict(each) for each in devices]}), file=messages, flush=True)
    request = LaunchRequest(**json.loads(sys.stdin.readline()))
    has_gpu = any(device.is_gpu for device in devices)
    _enlarge_stacks()
    server = _load(request, has_gpu=has_gpu)
    port = urlsplit(server.listening_address).port
    print(json.dumps({"port": port}), file=messages, flush=True)
    # Every system closes the pipe when the parent dies.
    sys.stdin.read()
    # Without llama.cpp's cleanup, which can hang on an open stream.
    os._exit(0)


def _enlarge_stacks() -> None:
    """Give new threads a larger stack, if the C library supports it."""
    library, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    if hasattr(library, "pthread_setattr_default_np"):
        library.pthread_attr_init(attributes)
        library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        library.pthread_setattr_default_np(attributes)


def _devices() -> list[Device]:
    import xllamacpp

    return [
        Device(
            name=found["name"],
            description=found["description"],
            kind=found["type"].name.rpartition("_")[2],
        )
        for found in xllamacpp.get_device_info()
    ]


def _load(request: LaunchRequest, *, has_gpu: bool) -> Any:
    """Return xllamacpp's untyped Server, which serves while it is referenced."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = request.path
    parameters.n_ctx = request.context_tokens * request.parallel
    parameters.n_parallel = request.parallel
    if not has_gpu:
        parameters.n_batch = _CPU_BATCH
    if request.mmproj:
        parameters.mmproj.path = request.mmproj
        parameters.mmproj_use_gpu = request.gpu_layers != 0
        tokens = _PICTURE if has_gpu else _CPU_PICTURE
        parameters.image_max_tokens = parameters.n_batch = parameters.n_ubatch = tokens
    if request.gpu_layers is not None:
        parameters.n_gpu_layers = request.gpu_layers
    parameters.cpuparams.n_threads = request.threads
    parameters.sampling.penalty_repeat = request.repeat_penalty
    parameters.cpuparams_batch.n_threads = request.threads
    parameters.cache_ram_mib = _CACHE_MIB
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = request.port
    parameters.api_keys = [request.api_key]
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.verbosity = _ERRORS
    return xllamacpp.Server(parameters)


if __name__ == "__main__":
    _main()
