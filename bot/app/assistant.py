"""The model that answers, with its prompt and its limits, as the settings choose it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from bot.concurrency import cancelled
from bot.errors import CannotStart
from bot.model import client, server_counter
from bot.model.client import ChatModel
from bot.model.context_window import ContextWindowModel
from bot.model.heedful import heeding
from bot.model.retrying import Asked, RetryingModel, RetryPolicy
from bot.model.server import ModelServer
from bot.model.server_info import ServerInfo, look
from bot.ports import Model
from bot.proxy import warn_if_readable
from bot.tokens import tokenizers
from bot.tokens.counters import CarefulCounter
from config.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # the longest silence of a model within an answer

DEMO = "demo"
# SmolLM2-135M is sensitive to its prompt. Of five prompts and two settings, tried with 48 questions
# each, this pair answered most (45) and never turned to French at the word France.
DEMO_PROMPT = (
    "You are a helpful English-speaking assistant who gives short, clear and correct answers."
)
DEMO_TEMPERATURE = 0.2
DEMO_TOP_P = 0.9
DEMO_CONTEXT = 2048  # tokens of one conversation
DEMO_ANSWER = 512  # tokens; after that it only repeats itself
LOCAL_SLOTS = 4  # answers that the embedded model writes at once; further ones wait

_LOGGED_NAMES = 8  # of a server's models


@dataclass(frozen=True, slots=True)
class Assistant:
    """A model and its system prompt; `label` names it to people."""

    model: Model
    label: str
    system_prompt: str


@asynccontextmanager
async def open_assistant(
    settings: Settings, roles: frozenset[str], stopping: asyncio.Event
) -> AsyncIterator[Assistant]:
    """Connect the configured models, or start the embedded one. Raises CannotStart."""
    chosen = (
        settings.hf_token
        or settings.model_url
        or settings.local_model_path
        or settings.transformers_model
    )
    if settings.model_id != DEMO and not chosen and "worker" in roles and settings.chat_platforms:
        raise CannotStart(
            "there is no model: set HF_TOKEN, MODEL_URL, LOCAL_MODEL_PATH or TRANSFORMERS_MODEL, "
            "or MODEL_ID=demo for the small embedded one"
        )
    async with AsyncExitStack() as stack:
        if settings.model_id == DEMO or not chosen:
            assistant = await _open_local(_for_demo(settings), stopping, stack)
        elif settings.local_model_path:
            assistant = await _open_local(settings, stopping, stack)
        elif settings.transformers_model:
            assistant = await _open_transformers(settings, stopping, stack)
        else:
            assistant = await _open_remote(settings, stopping, stack)
        # If nobody chose the demo model, it must not be taken for a good one.
        by_default = not chosen and settings.model_id != DEMO
        log.log(
            logging.WARNING if by_default else logging.INFO,
            "Answers come from %s",
            assistant.label,
        )
        yield assistant


def _for_demo(settings: Settings) -> Settings:
    """Return the settings with the demo model's values for those that the operator left out."""
    return replace(
        settings,
        local_model_path=None,
        system_prompt=_system_prompt(settings, default=DEMO_PROMPT),
        context_tokens=DEMO_CONTEXT,
        max_tokens=min(settings.max_tokens, DEMO_ANSWER),
        temperature=DEMO_TEMPERATURE if settings.temperature is None else settings.temperature,
        top_p=DEMO_TOP_P if settings.top_p is None else settings.top_p,
    )


def _system_prompt(settings: Settings, *, default: str) -> str:
    chosen = settings.system_prompt != Settings().system_prompt
    return settings.system_prompt if chosen else default


async def _open_local(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_fallbacks:
        log.warning("MODEL_FALLBACKS is for HF_TOKEN and MODEL_URL; the embedded model has none")
    from bot.local import llama_cpp

    server = await stack.enter_async_context(
        llama_cpp.serve(
            path=settings.local_model_path,
            gpu_layers=settings.gpu_layers,
            threads=settings.local_threads,
            context_tokens=settings.context_tokens,
            parallel=LOCAL_SLOTS,
        )
    )
    if server.context_tokens <= settings.max_tokens:
        raise CannotStart(
            f"MAX_TOKENS={settings.max_tokens} leaves no room for a question in the "
            f"{server.context_tokens} tokens of {server.name}"
        )
    models = await _fitted_models(
        replace(settings, context_tokens=server.context_tokens),
        *(stack, [server.name], server.url, server.api_key),
        # Silence is no failure: it sends nothing while it reads a long prompt or waits for a free
        # slot. If the process dies, the connection ends.
        idle_timeout=settings.reply_timeout,
    )
    demo = "a small demo model: set HF_TOKEN or MODEL_URL for a good one"
    return Assistant(
        model=_steady_model(settings, stopping, models),
        label=f"{server.name}, {demo}" if server.demo else f"{server.name} on this machine",
        system_prompt=settings.system_prompt,
    )


async def _open_transformers(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_fallbacks:
        log.warning("MODEL_FALLBACKS is for HF_TOKEN and MODEL_URL; TRANSFORMERS_MODEL has none")
    from bot.local import transformers_model

    name = settings.transformers_model
    server = await stack.enter_async_context(
        transformers_model.serve(
            name=name,
            token=settings.hf_token,
            context_tokens=settings.context_tokens,
            max_tokens=settings.max_tokens,
        )
    )
    models = await _fitted_models(
        replace(
            settings,
            max_tokens=server.max_tokens,
            context_tokens=server.prompt_tokens + server.max_tokens,
        ),
        *(stack, [name], server.url, server.api_key),
        # A request that waits for its turn receives keep-alives at most.
        idle_timeout=settings.reply_timeout,
    )
    return Assistant(
        model=_steady_model(settings, stopping, models),
        label=f"{name}, run by transformers on this machine",
        # A dialogue model would repeat it as an answer.
        system_prompt=_system_prompt(
            settings, default="" if server.is_dialogue else settings.system_prompt
        ),
    )


async def _open_remote(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_url:
        return await _open_own_server(settings, stopping, stack)
    from bot.model import huggingface

    names = _names(settings)
    # In the background: the bot also starts if Hugging Face is slow or away.
    asked = huggingface.foretell(
        models=names, key=settings.hf_token, router=client.ROUTER, hub=huggingface.HUB
    )
    stack.push_async_callback(cancelled, asyncio.create_task(asked))
    models = await _fitted_models(
        settings, stack, names, None, settings.hf_token, idle_timeout=IDLE_SECONDS
    )
    return Assistant(
        model=_steady_model(settings, stopping, models),
        label=f"{settings.model_id} at Hugging Face",
        system_prompt=settings.system_prompt,
    )


async def _open_own_server(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    # HF_TOKEN is for Hugging Face alone.
    url, key = settings.model_url, settings.model_api_key
    if key:
        warn_if_readable("MODEL_API_KEY", by="MODEL_URL", url=url)
    server = ModelServer(url=url, key=key or "-", model=settings.model_id, own=True)
    offer, written = await look(server), _names(settings)
    settings = _as_offered(settings, server, offer)
    models = await _fitted_models(
        settings, stack, _names(settings), url, key, idle_timeout=IDLE_SECONDS, written=written
    )
    if offer.context:
        for each in models:
            each.limit(offer.context)
    heedful = [
        await stack.enter_async_context(heeding(each, replace(server, model=each.name)))
        for each in models
    ]
    return Assistant(
        model=_steady_model(settings, stopping, heedful),
        label=f"{settings.model_id} at {urlsplit(url).hostname}",
        system_prompt=settings.system_prompt,
    )


def _names(settings: Settings) -> list[str]:
    return list(dict.fromkeys((settings.model_id, *settings.model_fallbacks)))


def _as_offered(settings: Settings, server: ModelServer, offer: ServerInfo) -> Settings:
    """Return the settings with the names and limits that the server reports."""
    name, context = offer.name_for(settings.model_id), offer.context
    if offer.trouble:
        log.warning(
            "MODEL_URL: %s %s; questions are answered as soon as it can be reached",
            *(server, offer.trouble),
        )
    elif not offer.models:
        log.info("%s does not list its models; MODEL_ID is used as it is", server)
    elif name is None:
        log.warning(
            "%s has no %s: set MODEL_ID to one of %s",
            *(server, settings.model_id, ", ".join(sorted(offer.models)[:_LOGGED_NAMES])),
        )
    settings = replace(
        settings,
        model_id=name or settings.model_id,
        # A fallback under another name of the same model would be no fallback.
        model_fallbacks=tuple(offer.name_for(each) or each for each in settings.model_fallbacks),
    )
    if context is None:
        return settings
    # At most half of a small context is for the answer: the question must fit, too.
    return replace(settings, max_tokens=min(settings.max_tokens, max(context // 2, 1)))


def _steady_model(settings: Settings, stopping: asyncio.Event, models: Sequence[Asked]) -> Model:
    return RetryingModel(
        models=models,
        schedule=RetryPolicy(),
        total_timeout=settings.reply_timeout,
        stopping=stopping,
    )


async def _fitted_models(
    settings: Settings,
    stack: AsyncExitStack,
    names: Sequence[str],
    url: str | None,
    key: str,
    *,
    idle_timeout: float,
    written: Sequence[str] | None = None,
) -> list[ContextWindowModel]:
    """Connect models; `written` are the names from the settings (None: all of them)."""
    return [
        await _fitted_model(
            *(settings, stack, name, url, key),
            idle_timeout=idle_timeout,
            is_written=written is None or name.removesuffix(":latest") in written,
        )
        for name in names
    ]


async def _fitted_model(
    settings: Settings,
    stack: AsyncExitStack,
    name: str,
    url: str | None,
    key: str,
    *,
    idle_timeout: float,
    is_written: bool,
) -> ContextWindowModel:
    chat = await _chat_model(settings, stack, name, url, key, idle_timeout=idle_timeout)
    server = ModelServer(url=url, key=key or "-", model=name, own=True) if url else None
    fitted = ContextWindowModel(
        model=chat,
        counter=CarefulCounter(),
        server=await stack.enter_async_context(server_counter.connect(server)) if server else None,
        budget=settings.context_tokens - settings.max_tokens,
        answer=settings.max_tokens,
    )
    if not tokenizers.may_be_had(name):
        return fitted
    if is_written:
        tokenizers.find(
            name,
            token=settings.hf_token,
            data_dir=settings.data_dir,
            endpoint=None,
            found=partial(setattr, fitted, "counter"),
        )
    else:
        # A server must not choose what is downloaded from Hugging Face or read on this machine.
        log.info(
            "Prompts for %s are measured by an estimate, because MODEL_ID does not name it", name
        )
    return fitted


async def _chat_model(
    settings: Settings,
    stack: AsyncExitStack,
    name: str,
    url: str | None,
    key: str,
    *,
    idle_timeout: float,
) -> ChatModel:
    return await stack.enter_async_context(
        client.connect(
            model=name,
            base_url=url,
            api_key=key,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            idle_timeout=idle_timeout,
            total_timeout=settings.reply_timeout,
        )
    )
