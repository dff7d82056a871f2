"""What the operator reads about the embedded model, and its fallback to the CPU."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import CannotStart
from bot.local.child_process import ChildProcess
from bot.local.llama_cpp import (
    GpuFailed,
    load_error,
    missing_gpu_build,
    startup_summary,
    with_cpu_fallback,
)
from bot.local.llama_cpp_process import Device, LaunchRequest

REQUEST = LaunchRequest(
    path="m.gguf",
    gpu_layers=None,
    context_tokens=8192,
    parallel=4,
    threads=7,
    api_key="",
    port=0,
    repeat_penalty=1.0,
)
CPU = Device(name="CPU", description="AMD EPYC", kind="CPU")
GPU = Device(name="CUDA0", description="NVIDIA H100", kind="GPU")


def test_a_gpu_that_the_build_lacks_is_reported_with_the_remedy() -> None:
    sentence = missing_gpu_build(REQUEST, [CPU], maker="NVIDIA")

    assert "a GPU of NVIDIA" in sentence
    assert "--index-url https://xorbitsai.github.io/xllamacpp/whl/cu128`" in sentence


@pytest.mark.parametrize("maker", ["NVIDIA", None])
def test_nothing_is_missing_if_the_cpu_was_chosen(maker: str | None) -> None:
    assert missing_gpu_build(replace(REQUEST, gpu_layers=0), [CPU], maker=maker) == ""


def test_without_a_gpu_there_is_a_warning_only_if_one_was_requested() -> None:
    assert missing_gpu_build(REQUEST, [CPU], maker=None) == ""
    assert "no effect" in missing_gpu_build(replace(REQUEST, gpu_layers=9), [CPU], maker=None)


def test_the_summary_names_the_gpu_and_its_layers() -> None:
    assert startup_summary(REQUEST, [CPU, GPU]) == (
        "The embedded model runs on CUDA0 (NVIDIA H100) with GPU_LAYERS=auto: 7 threads,"
        " 4 conversations at once with 8192 tokens each"
    )


def test_the_installed_llama_cpp_logs_a_lack_of_memory_in_these_words() -> None:
    spec = importlib.util.find_spec("xllamacpp.xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra local: pip install -r requirements-local.txt")

    library = Path(spec.origin).read_bytes()

    assert b"unable to allocate %s buffer" in library


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "0.1 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 4000000000",
            "a lower CONTEXT_TOKENS, a smaller file or GPU_LAYERS=auto may help",
        ),
        # An exception, which ends the process without a line of the log.
        ("  what():  std::bad_alloc", "a lower CONTEXT_TOKENS"),
        # Logged by xllamacpp 2026.10.
        (
            "0.00.871.111 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1",
            "another program has its port",
        ),
        ("0.1 E llama_model_load: something new", "something new; check LOCAL_MODEL_PATH"),
    ],
)
def test_an_error_of_llama_cpp_is_reported_with_the_remedy(line: str, sentence: str) -> None:
    later = ["0.2 E main: it failed, too"] if " E " in line else []

    assert sentence in load_error([line, *later])


async def test_a_model_that_does_not_load_on_a_gpu_runs_on_the_cpu() -> None:
    attempts = []

    async def start(request: LaunchRequest) -> ChildProcess:
        attempts.append(request.gpu_layers)
        raise GpuFailed("the GPU has too little memory")

    with pytest.raises(GpuFailed):
        await with_cpu_fallback(REQUEST, start)

    assert attempts == [None, 0]


async def test_a_chosen_number_of_gpu_layers_is_not_changed() -> None:
    attempts = []

    async def start(request: LaunchRequest) -> ChildProcess:
        attempts.append(request.gpu_layers)
        raise CannotStart("the GPU has too little memory")

    with pytest.raises(CannotStart):
        await with_cpu_fallback(replace(REQUEST, gpu_layers=9), start)

    assert attempts == [9]
