"""The kinds of server that the emulator can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tests.emulators.model.dialect import Dialect
from tests.emulators.model.llama_cpp import LlamaCpp
from tests.emulators.model.ollama import Ollama
from tests.emulators.model.router import Router
from tests.emulators.model.tgi import Tgi
from tests.emulators.model.vllm import Vllm

Flavour = Literal["llama.cpp", "vllm", "tgi", "ollama", "router"]

DIALECTS: Mapping[Flavour, Dialect] = {
    "llama.cpp": LlamaCpp(),
    "vllm": Vllm(),
    "tgi": Tgi(),
    "ollama": Ollama(),
    "router": Router(),
}
