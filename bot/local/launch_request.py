"""What the bot and the process of its embedded model tell each other, a line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Device:
    """What llama.cpp can compute on; `kind` is its own word, such as CPU, GPU or IGPU."""

    name: str
    description: str
    kind: str
    free: int  # bytes


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What the process is to serve; it travels on its standard input, where `ps` does not look.

    `gpu_layers` None lets llama.cpp put on the GPU what fits.
    """

    path: str
    gpu_layers: int | None
    context_tokens: int
    parallel: int
    threads: int
    api_key: str = field(repr=False)
    port: int
    repeat_penalty: float


@dataclass(frozen=True, slots=True)
class Ready:
    """That the process serves, where, and how many tokens a conversation may have."""

    port: int
    context_tokens: int
