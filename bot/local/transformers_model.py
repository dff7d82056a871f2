"""A model in Hugging Face's own format, run on this machine by a process that ends with ours."""

from __future__ import annotations

import importlib.util
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bot.errors import CannotStart
from bot.local.child_process import ChildProcess, Told, kept, starting

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # A token that lies on the machine is not used: who means it sets HF_TOKEN.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # For weights that are pickled transformers would have somebody else make a better file, and
    # hand the token to them (transformers 5.23, safetensors_conversion.py).
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}


@dataclass(frozen=True, slots=True)
class TransformersServer:
    """An OpenAI-compatible server on loopback, and how many tokens a prompt and an answer may have.

    `is_dialogue` says that the model goes on a conversation and takes no orders, as Blenderbot.
    """

    url: str
    api_key: str = field(repr=False)
    prompt_tokens: int
    max_tokens: int
    is_dialogue: bool


@dataclass(frozen=True, slots=True)
class _Ready:
    """What the process tells before it reads the weights."""

    port: int
    prompt_tokens: int
    max_tokens: int
    is_dialogue: bool


@asynccontextmanager
async def serve(
    *, name: str, token: str, context_tokens: int, max_tokens: int
) -> AsyncIterator[TransformersServer]:
    """Run a model, by its name at Hugging Face or its folder, while the context lasts.

    It takes questions at once and answers them when its weights are read. CannotStart when it is
    plain before that it cannot be run: not installed, no such model, gated, too large.
    """
    if any(importlib.util.find_spec(each) is None for each in ("torch", "transformers")):
        raise CannotStart(
            "TRANSFORMERS_MODEL needs the packages torch and transformers:"
            " install requirements-transformers.txt as the README says"
        )
    key = secrets.token_urlsafe(24)
    order: Told = {
        "name": _place(name),
        "token": token,
        "context_tokens": context_tokens,
        "max_tokens": max_tokens,
        "api_key": key,
    }
    log.info("Looking at %s", name)
    async with kept(name, lambda port: _start({**order, "port": port})) as ready:
        yield TransformersServer(
            url=f"http://127.0.0.1:{ready.port}/v1",
            api_key=key,
            prompt_tokens=ready.prompt_tokens,
            max_tokens=ready.max_tokens,
            is_dialogue=ready.is_dialogue,
        )


def _place(name: str) -> str:
    """Return a folder's whole path, for the process stands elsewhere, and other names as they are.

    CannotStart when a path leads to no folder, or to one that we may not read.
    """
    try:
        path = Path(name).expanduser()
        if not path.is_absolute() and not path.is_dir():
            return name
        any(path.iterdir())
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotStart(f"TRANSFORMERS_MODEL={name}: {reason}") from error
    return str(path.absolute())


async def _start(order: Told) -> tuple[ChildProcess, _Ready]:
    try:
        async with starting(
            "bot.local.transformers_process",
            environment=_ENVIRONMENT,
            is_worth=lambda _: True,
            heed=_heed,
        ) as child:
            await child.tell(order)
            told = await child.hear()
            if "error" in told:
                raise CannotStart(told["error"])
            return child, _Ready(**told)
    # Not ready in time, or a closed pipe where an answer should stand.
    except OSError as error:
        raise CannotStart(f"{order['name']} did not start: {child.last_words}") from error


def _heed(told: Told) -> None:
    log.info("%s", told["loaded"])
