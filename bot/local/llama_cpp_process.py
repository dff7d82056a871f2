"""The process of the embedded model: llama.cpp's own server, which ends with its parent.

It says what the build offers, hears on its standard input what to serve, and says when it is ready.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from dataclasses import asdict
from typing import Protocol
from urllib.parse import urlsplit

from bot.local.launch_request import Device, LaunchRequest, Ready

# Kept conversations outside the slots; llama.cpp's own limit is 8 GiB.
_CACHE_MIB = 512
_ASK_SECONDS = 3.0
# llama.cpp tells how many layers it has put on a GPU only when it tells everything but prompts.
_ERRORS, _EVERYTHING = 1, 4


def _main() -> None:
    """Serve what the first line of standard input orders, until standard input ends."""
    # Nothing that llama.cpp prints may come between: from here on its standard output is ours.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    devices = _devices()
    offer = {"devices": [asdict(device) for device in devices]}
    print(json.dumps(offer), file=answers, flush=True)
    order = LaunchRequest(**json.loads(sys.stdin.readline()))
    server = _load(order, talks=any("GPU" in device.kind for device in devices))
    port = urlsplit(server.listening_address).port or order.port
    ready = Ready(port, _context_tokens(port, order.api_key))
    print(json.dumps(asdict(ready)), file=answers, flush=True)
    # The end of file comes from the kernel when our parent dies, of whatever, on every system.
    sys.stdin.read()
    # Without llama.cpp's tidying up, which can hang on a stream that is still open.
    os._exit(0)


def _devices() -> list[Device]:
    import xllamacpp

    return [
        Device(
            name=found["name"],
            description=found["description"],
            kind=found["type"].name.rpartition("_")[2],
            free=found["memory_free"],
        )
        for found in xllamacpp.get_device_info()
    ]


class _Listening(Protocol):
    """What we use of xllamacpp's untyped Server, which serves for as long as it is referenced."""

    listening_address: str


def _load(order: LaunchRequest, *, talks: bool) -> _Listening:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = order.path
    parameters.n_ctx = order.context_tokens * order.parallel
    parameters.n_parallel = order.parallel
    if order.gpu_layers is not None:
        parameters.n_gpu_layers = order.gpu_layers
    parameters.cpuparams.n_threads = order.threads
    parameters.sampling.penalty_repeat = order.repeat_penalty
    parameters.cpuparams_batch.n_threads = order.threads
    parameters.cache_ram_mib = _CACHE_MIB
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = order.port
    parameters.api_keys = [order.api_key]
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.verbosity = _EVERYTHING if talks else _ERRORS
    server: _Listening = xllamacpp.Server(parameters)
    return server


def _context_tokens(port: int, key: str) -> int:
    """Ask the server what one conversation may use: a model's own limit goes before ours."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_SECONDS)
    connection.request("GET", "/props", headers={"Authorization": f"Bearer {key}"})
    properties = json.load(connection.getresponse())
    return int(properties["default_generation_settings"]["n_ctx"])


if __name__ == "__main__":
    _main()
