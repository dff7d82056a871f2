"""A model in Hugging Face's own format, run on this machine by a process that ends with ours."""

from __future__ import annotations

import importlib.util
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bot.child import Recipe, Told, kept
from bot.errors import CannotStart

log = logging.getLogger(__name__)


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
        "name": name,
        "token": token,
        "context_tokens": context_tokens,
        "max_tokens": max_tokens,
        "api_key": key,
        "port": 0,
    }
    recipe = Recipe("bot.transformers_server", order, name, _heed)
    log.info("Looking at %s", name)
    async with kept(recipe) as told:
        yield TransformersServer(
            url=f"http://127.0.0.1:{told['port']}/v1",
            api_key=key,
            prompt_tokens=int(str(told["prompt_tokens"])),
            max_tokens=int(str(told["max_tokens"])),
            is_dialogue=bool(told["is_dialogue"]),
        )


def _heed(told: Told) -> None:
    log.info("%s", told["loaded"])
