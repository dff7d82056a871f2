"""From settings to the model that answers, and what it is told and given."""

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
from bot.local import llama_cpp, transformers_model
from bot.model import huggingface
from bot.model.client import ROUTER, ModelClient
from bot.model.context_window import ContextWindowModel
from bot.model.endpoint import Endpoint
from bot.model.retrying import RetryingModel, RetryPolicy
from bot.model.server import ModelServer
from bot.model.server_counter import open_counter
from bot.model.server_info import ServerInfo, fetch_server_info, watch_server
from bot.model.transport import ServerConnection, connect
from bot.ports import Model
from bot.proxy import warn_if_readable
from bot.tokens import tokenizers
from bot.tokens.counters import TokenEstimator
from config.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # the longest silence of a model within an answer

DEMO = "demo"
# SmolLM2-135M takes what it is told by the letter: of five prompts and two settings tried with 48
# questions each, this one answered most (45) and never broke into French at the word France.
DEMO_PROMPT = (
    "You are a helpful English-speaking assistant who gives short, clear and correct answers."
)
DEMO_TEMPERATURE = 0.2
DEMO_TOP_P = 0.9
DEMO_CONTEXT = 2048  # tokens of one conversation
DEMO_ANSWER = 512  # tokens, after which it only repeats itself
LOCAL_SLOTS = 4  # answers that the embedded model writes at once; further ones wait their turn

_NAMES = 8  # of a server's models, in the log


@dataclass(frozen=True, slots=True)
class Assistant:
    """The model that answers, and what it is told and given."""

    model: Model
    label: str
    system_prompt: str


@asynccontextmanager
async def open_assistant(
    settings: Settings, roles: frozenset[str], stopping: asyncio.Event
) -> AsyncIterator[Assistant]:
    """Connect the models that the settings name, or start the embedded one."""
    named = (
        settings.hf_token
        or settings.model_url
        or settings.local_model_path
        or settings.transformers_model
    )
    if settings.model_id != DEMO and not named and "worker" in roles and settings.chat_platforms:
        raise CannotStart(
            "there is no model: set HF_TOKEN, MODEL_URL, LOCAL_MODEL_PATH or TRANSFORMERS_MODEL, "
            "or MODEL_ID=demo for the small embedded one"
        )
    async with AsyncExitStack() as stack:
        if settings.model_id == DEMO or not named:
            mind = await _local_mind(_for_the_demo(settings), stopping, stack)
        elif settings.local_model_path:
            mind = await _local_mind(settings, stopping, stack)
        elif settings.transformers_model:
            mind = await _transformers_mind(settings, stopping, stack)
        else:
            mind = await _remote_mind(settings, stopping, stack)
        # Nobody chose the demo model, and it is not to be taken for a good one.
        unchosen = not named and settings.model_id != DEMO
        log.log(logging.WARNING if unchosen else logging.INFO, "Answers come from %s", mind.label)
        yield mind


def _for_the_demo(settings: Settings) -> Settings:
    """Put what suits the demo model where the operator left it to us."""
    return replace(
        settings,
        local_model_path=None,
        system_prompt=_told(settings, otherwise=DEMO_PROMPT),
        context_tokens=DEMO_CONTEXT,
        max_tokens=min(settings.max_tokens, DEMO_ANSWER),
        temperature=DEMO_TEMPERATURE if settings.temperature is None else settings.temperature,
        top_p=DEMO_TOP_P if settings.top_p is None else settings.top_p,
    )


def _told(settings: Settings, *, otherwise: str) -> str:
    """Return the operator's system prompt, where there is one."""
    told = settings.system_prompt != Settings().system_prompt
    return settings.system_prompt if told else otherwise


async def _local_mind(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_fallbacks:
        log.warning("MODEL_FALLBACKS is for HF_TOKEN and MODEL_URL; the embedded model has none")
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
    connection = await _connect(server.url, server.api_key, server.name, stack)
    model = await _fitted_model(
        replace(settings, context_tokens=server.context_tokens),
        *(stack, connection),
        # Its silence is no sign of trouble: it says nothing while it reads a long prompt or has no
        # slot free, and when it dies, the connection ends.
        idle_timeout=settings.reply_timeout,
    )
    demo = "a small demo model: set HF_TOKEN or MODEL_URL for a good one"
    return Assistant(
        model=_retrying_model(settings, stopping, [model]),
        label=f"{server.name}, {demo}" if server.demo else f"{server.name} on this machine",
        system_prompt=settings.system_prompt,
    )


async def _transformers_mind(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_fallbacks:
        log.warning("MODEL_FALLBACKS is for HF_TOKEN and MODEL_URL; TRANSFORMERS_MODEL has none")
    name = settings.transformers_model
    server = await stack.enter_async_context(
        transformers_model.serve(
            name=name,
            token=settings.hf_token,
            context_tokens=settings.context_tokens,
            max_tokens=settings.max_tokens,
        )
    )
    connection = await _connect(server.url, server.api_key, name, stack)
    model = await _fitted_model(
        replace(
            settings,
            max_tokens=server.max_tokens,
            context_tokens=server.prompt_tokens + server.max_tokens,
        ),
        *(stack, connection),
        # An answer that waits for a slot is silent, or has signs of life at most.
        idle_timeout=settings.reply_timeout,
    )
    return Assistant(
        model=_retrying_model(settings, stopping, [model]),
        label=f"{name}, run by transformers on this machine",
        # It would only cost a dialogue model room, and come back as an answer.
        system_prompt=_told(
            settings, otherwise="" if server.is_dialogue else settings.system_prompt
        ),
    )


async def _remote_mind(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    if settings.model_url:
        return await _own_mind(settings, stopping, stack)
    names, server = (
        _names(settings),
        ModelServer(ROUTER, settings.hf_token, settings.model_id, own=False),
    )
    connection = await stack.enter_async_context(connect(server))
    # Nobody waits for it: the bot starts even if Hugging Face is slow or away.
    report = huggingface.log_availability(connection, names)
    stack.push_async_callback(cancelled, asyncio.create_task(report))
    models = [
        await _fitted_model(settings, stack, connection.for_model(name), idle_timeout=IDLE_SECONDS)
        for name in names
    ]
    return Assistant(
        model=_retrying_model(settings, stopping, models),
        label=f"{settings.model_id} at Hugging Face",
        system_prompt=settings.system_prompt,
    )


async def _own_mind(
    settings: Settings, stopping: asyncio.Event, stack: AsyncExitStack
) -> Assistant:
    # HF_TOKEN is for Hugging Face alone.
    url, key = settings.model_url, settings.model_api_key
    if key:
        warn_if_readable("MODEL_API_KEY", by="MODEL_URL", url=url)
    connection = await _connect(url, key, settings.model_id, stack)
    chosen = _names(settings)
    settings = _as_offered(settings, connection.server, await fetch_server_info(connection))
    models = [
        await _fitted_model(
            *(settings, stack, connection.for_model(name)),
            idle_timeout=IDLE_SECONDS,
            is_chosen=name.removesuffix(":latest") in chosen,
            is_watched=True,
        )
        for name in _names(settings)
    ]
    return Assistant(
        model=_retrying_model(settings, stopping, models),
        label=f"{settings.model_id} at {urlsplit(url).hostname}",
        system_prompt=settings.system_prompt,
    )


async def _connect(url: str, key: str, model: str, stack: AsyncExitStack) -> ServerConnection:
    # With an empty key huggingface_hub would use the saved HF_TOKEN, for any address.
    server = ModelServer(url=url, key=key or "-", model=model, own=True)
    return await stack.enter_async_context(connect(server))


def _names(settings: Settings) -> list[str]:
    return list(dict.fromkeys((settings.model_id, *settings.model_fallbacks)))


def _as_offered(settings: Settings, server: ModelServer, offer: ServerInfo) -> Settings:
    """Put what the server itself says of its model where it goes before the settings."""
    name, context = offer.name_for(settings.model_id), offer.context
    if offer.trouble:
        log.warning(
            "MODEL_URL: %s %s; questions are answered as soon as it can be asked",
            *(server, offer.trouble),
        )
    elif not offer.models:
        log.info("%s does not tell which models it has; MODEL_ID is asked for", server)
    elif name is None:
        log.warning(
            "%s has no %s: set MODEL_ID to one of %s",
            *(server, settings.model_id, ", ".join(sorted(offer.models)[:_NAMES])),
        )
    settings = replace(
        settings,
        model_id=name or settings.model_id,
        # Under another name the only model would answer for itself.
        model_fallbacks=tuple(offer.name_for(each) or each for each in settings.model_fallbacks),
    )
    if context is None:
        return settings
    # An answer may take half of a small context: a question has to fit, too.
    return replace(settings, max_tokens=min(settings.max_tokens, max(context // 2, 1)))


def _retrying_model(
    settings: Settings, stopping: asyncio.Event, models: Sequence[Endpoint]
) -> Model:
    return RetryingModel(
        models=models,
        policy=RetryPolicy(),
        total_timeout=settings.reply_timeout,
        stopping=stopping,
    )


async def _fitted_model(
    settings: Settings,
    stack: AsyncExitStack,
    connection: ServerConnection,
    *,
    idle_timeout: float,
    is_chosen: bool = True,
    is_watched: bool = False,
) -> ContextWindowModel:
    """Open a model; `is_chosen` says that its name is the operator's and not the server's.

    If it `is_watched`, its server is asked for its context size, which may change.
    """
    name, own = connection.server.model, connection.server.own
    counting_server = await stack.enter_async_context(open_counter(connection)) if own else None
    watch = await stack.enter_async_context(watch_server(connection)) if is_watched else None
    model = ContextWindowModel(
        model=ModelClient(
            connection,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            idle_timeout=idle_timeout,
            total_timeout=settings.reply_timeout,
        ),
        counter=TokenEstimator(),
        counting_server=counting_server,
        watch=watch,
        budget=settings.context_tokens - settings.max_tokens,
        answer=settings.max_tokens,
    )
    if not tokenizers.can_be_found(name):
        return model
    if is_chosen:
        tokenizers.find(
            name,
            token=settings.hf_token,
            data_dir=settings.data_dir,
            endpoint=None,
            found=partial(setattr, model, "counter"),
        )
    else:
        # A server does not choose what is fetched from Hugging Face, or read on this machine.
        log.info("Prompt lengths for %s are estimated: MODEL_ID does not name it", name)
    return model
