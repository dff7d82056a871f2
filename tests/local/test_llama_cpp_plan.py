"""Where the embedded model runs, and what its operator reads."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import CannotStart
from bot.local.gguf import Gguf
from bot.local.launch_request import Device, LaunchRequest
from bot.local.llama_cpp import GpuFailed, Words, without_gpu_at_need
from bot.local.llama_cpp_plan import chosen, complaint, lacking, need, shortage

MODEL = Gguf(
    architecture="llama",
    layers=33,
    trained_tokens=32768,
    file_bytes=4_000_000_000,
    token_bytes=131_072,
    exact=True,
)
ORDER = LaunchRequest(
    path="m.gguf",
    gpu_layers=None,
    context_tokens=8192,
    parallel=4,
    threads=7,
    api_key="",
    port=0,
    repeat_penalty=1.0,
)
CPU = Device(name="CPU", description="AMD EPYC", kind="CPU", free=1)
GPU = Device(name="CUDA0", description="NVIDIA H100", kind="GPU", free=1)
# As llama.cpp writes it (src/llama-model.cpp), with its time before it.
OFFLOADED = "0.01.234.567 I load_tensors: offloaded 20/33 layers to GPU"


def test_enough_memory_needs_no_word() -> None:
    assert shortage(need(MODEL, ORDER, [CPU]), ORDER, free=9_000_000_000) == ("", False)


def test_contexts_that_do_not_fit_are_refused_with_the_cure() -> None:
    sentence, hopeless = shortage(need(MODEL, ORDER, [CPU]), ORDER, free=4_200_000_000)

    assert hopeless
    assert "needs 8.4 GB of memory (4.0 GB for its file, 4.3 GB for 4 conversations" in sentence
    assert "4.2 GB are free" in sentence
    assert sentence.endswith("take a smaller quantization or a smaller model")


def test_the_cure_is_a_context_that_fits() -> None:
    small = replace(MODEL, file_bytes=1_000_000_000)

    sentence, hopeless = shortage(need(small, ORDER, [CPU]), ORDER, free=3_000_000_000)
    found = replace(ORDER, context_tokens=3584)

    assert hopeless
    assert "take CONTEXT_TOKENS=3584, a smaller" in sentence
    assert shortage(need(small, found, [CPU]), found, free=3_000_000_000) == ("", False)


def test_a_file_that_does_not_fit_beside_them_may_still_work() -> None:
    sentence, hopeless = shortage(need(MODEL, ORDER, [CPU]), ORDER, free=5_000_000_000)

    assert sentence
    assert not hopeless


def test_what_is_not_known_exactly_is_never_refused() -> None:
    unsure = replace(MODEL, exact=False)

    sentence, hopeless = shortage(need(unsure, ORDER, [CPU]), ORDER, free=1_000_000_000)

    assert sentence
    assert not hopeless


def test_a_system_that_does_not_tell_is_trusted() -> None:
    assert shortage(need(MODEL, ORDER, [CPU]), ORDER, free=None) == ("", False)


@pytest.mark.parametrize(("layers", "share"), [(None, 0), (0, 33), (13, 20), (33, 0)])
def test_what_is_on_a_gpu_takes_none_of_the_machines_memory(layers: int | None, share: int) -> None:
    order = replace(ORDER, gpu_layers=layers)

    assert need(MODEL, order, [CPU, GPU]).weights == 4_000_000_000 * share // 33


def test_a_gpu_that_the_build_lacks_is_told_with_the_way_to_it() -> None:
    sentence = lacking(ORDER, [CPU], maker="NVIDIA")

    assert "a GPU of NVIDIA" in sentence
    assert "--index-url https://xorbitsai.github.io/xllamacpp/whl/cu128`" in sentence


@pytest.mark.parametrize("maker", ["NVIDIA", None])
def test_who_wants_the_cpu_hears_nothing_of_gpus(maker: str | None) -> None:
    assert lacking(replace(ORDER, gpu_layers=0), [CPU], maker=maker) == ""


def test_a_machine_without_one_hears_nothing_unless_it_was_asked_for() -> None:
    assert lacking(ORDER, [CPU], maker=None) == ""
    assert "no effect" in lacking(replace(ORDER, gpu_layers=9), [CPU], maker=None)


def test_a_gpu_in_use_is_named_with_its_layers() -> None:
    words = Words()
    kept = words.is_worth(OFFLOADED)

    line = chosen(MODEL, ORDER, [CPU, GPU], on_gpu=words.on_gpu, memory=1_500_000_000, seconds=2.0)

    assert line == (
        "The embedded model runs on CUDA0 (NVIDIA H100): 20 of 33 layers on a GPU, 7 threads,"
        " 4 conversations at once with 8192 tokens each, 1.5 GB of memory; loaded in 2.0 s"
    )
    assert not kept


def test_the_installed_llama_cpp_tells_of_layers_in_these_words() -> None:
    spec = importlib.util.find_spec("xllamacpp.xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra local: pip install -r requirements-local.txt")

    library = Path(spec.origin).read_bytes()

    assert b": offloaded %d/%d layers to GPU" in library
    assert b"unable to allocate %s buffer" in library


def test_a_gpu_without_memory_is_told_with_the_cure() -> None:
    words = ["0.1 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 4000000000"]

    text = complaint(words, gpu=True)

    assert text.startswith("the GPU has too little memory: GPU_LAYERS=auto or a lower number")


def test_a_port_that_is_taken_is_no_fault_of_the_settings() -> None:
    # As llama.cpp says it (xllamacpp 2026.10, run).
    line = "0.00.871.111 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1"

    text = complaint([line], gpu=False)

    assert text.startswith("another program has its port")
    assert "LOCAL_MODEL_PATH" not in text


def test_no_word_at_all_is_told_too() -> None:
    assert "it gave no reason" in complaint([], gpu=False)


async def test_what_does_not_load_on_a_gpu_runs_on_the_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = []

    async def start(order: LaunchRequest) -> str:
        tried.append(order.gpu_layers)
        if order.gpu_layers is None:
            raise GpuFailed("the GPU has too little memory")
        return "a child"

    assert await without_gpu_at_need(ORDER, start) == "a child"

    assert tried == [None, 0]
    assert "too little memory; now without a GPU" in caplog.text


async def test_the_layers_that_an_operator_chose_are_not_put_elsewhere() -> None:
    async def start(order: LaunchRequest) -> str:
        raise CannotStart("the GPU has too little memory")

    with pytest.raises(CannotStart):
        await without_gpu_at_need(replace(ORDER, gpu_layers=9), start)
