"""The model that answers and its system prompt, as configured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bot.access.preferences import ModelChoice
from bot.access.quotas import Prices
from bot.app.platforms import all_specs
from bot.concurrency import running
from bot.errors import CannotStart
from bot.local.child_process import LocalServer
from bot.local.progress import Progress, shown_progress
from bot.model.client import ROUTER, ModelClient
from bot.model.context_window import ContextWindowModel
from bot.model.retrying import RetryingModel, RetryPolicy
from bot.model.server import ModelServer
from bot.model.server_info import ServerInfo, ServerWatch, fetch_server_info
from bot.model.transport import ServerConnection, connect
from bot.ports import Model
from bot.proxy import warn_if_readable
from bot.text.prompt import SystemPrompt
from bot.tokens.counters import TokenEstimator
from config.settings import Settings

if TYPE_CHECKING:  # without tools nothing of them is imported
    from bot.tools.toolset import ToolSource

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
DEMO_ANSWER = 512  # tokens; beyond that it repeats itself
LOCAL_SLOTS = 4  # parallel answers of the embedded model; further ones wait

_LOGGED_NAMES = 8  # of a server's models


@dataclass(frozen=True, slots=True)
class Assistant:
    """A model, its system prompt and its tools; `label` names the model to people.

    `tool_sources` are those that a question without a conversation may use.
    """

    model: Model
    label: str
    system_prompt: SystemPrompt
    settings: Settings
    tool_sources: Sequence[ToolSource] = ()


# The models to ask in their order, those that may be chosen by their names (VISION_MODEL among
# them), the label of the first one and its system prompt.
_Choice = tuple[Sequence[ContextWindowModel], Mapping[str, ContextWindowModel], str, str]


def is_demo(settings: Settings) -> bool:
    """Whether the small embedded model answers."""
    return settings.model_id == DEMO or not settings.names_model


def calls_tools(settings: Settings) -> bool:
    """Whether the model may call tools, as far as the settings tell."""
    calls_none = is_demo(settings) or bool(settings.transformers_model)
    return settings.tools is not False and (settings.names_tools or not calls_none)


def model_choices(
    settings: Settings, assistant: Assistant | None = None
) -> tuple[ModelChoice, ...]:
    """Return the models that people may choose; the first one answers if nothing is chosen.

    Empty if only a worker in another process knows what answers.
    """
    here = settings.local_model_path or settings.transformers_model
    is_named = settings.names_model and settings.model_id != DEMO and not here
    first = label_of(settings, settings.model_id) if is_named else ""
    found = {settings.model_id: assistant.model.name if assistant else first}
    found |= {name: label for name, label, _ in settings.models} if is_named else {}
    purposes = {name: purpose for name, _, purpose in settings.models}
    named = ((name, label, purposes.get(name, "")) for name, label in found.items())
    return tuple(ModelChoice(*one) for one in named if one[1])


def label_of(settings: Settings, name: str) -> str:
    """Return the name of a model for people: its label in MODELS, or else its own name."""
    labels = {name: label for name, label, _ in settings.models}
    return labels.get(name.removesuffix(":latest"), name)


@asynccontextmanager
async def open_assistant(
    settings: Settings,
    stopping: asyncio.Event,
    *,
    at_terminal: bool = False,
    prices: Prices | None = None,
) -> AsyncIterator[Assistant]:
    """Connect the configured models, or start the embedded one. Raises CannotStart.

    The `prices` of models at Hugging Face are filled in, as far as its catalogue has them.

    Downloads and the loading of models are shown `at_terminal` if that is one, or else logged.
    """
    async with AsyncExitStack() as stack:
        with shown_progress(at_terminal=at_terminal) as progress:
            if is_demo(settings) or settings.local_model_path:
                opening = _open_local(settings, stack, progress)
            elif settings.transformers_model:
                opening = _open_transformers(settings, stack, progress)
            elif settings.model_url:
                opening = _open_server(settings, stack)
            else:
                opening = _open_hugging_face(settings, stack, prices)
            models, offered, label, prompt = await opening
        # A demo model that was not chosen must not be mistaken for a good one.
        level = logging.INFO if settings.names_model else logging.WARNING
        log.log(level, "Answers come from %s", label)
        model = RetryingModel(
            models=models,
            policy=RetryPolicy(),
            total_timeout=settings.reply_timeout,
            stopping=stopping,
            offered=offered,
            seeing=settings.vision_model,
        )
        sources: Sequence[ToolSource] = ()
        if calls_tools(settings):
            from bot.tools.toolbox import open_sources

            sources = await stack.enter_async_context(open_sources(settings))
            if settings.names_tools and await model.takes_tools() is False:
                log.warning("%s calls no tools, so those that are set up are not used", model.name)
        # Date and time would confuse so small a model.
        adds_line = settings.system_prompt_line and not is_demo(settings)
        names = {spec.name: spec.where for spec in all_specs()}
        yield Assistant(model, label, SystemPrompt(prompt, adds_line, names), settings, sources)


def _system_prompt(settings: Settings, *, default: str) -> str:
    is_chosen = settings.system_prompt != Settings().system_prompt
    return settings.system_prompt if is_chosen else default


async def _open_local(settings: Settings, stack: AsyncExitStack, progress: Progress) -> _Choice:
    from bot.local import hub, llama_cpp

    if is_demo(settings):
        settings = replace(
            settings,
            local_model_path=None,
            local_mmproj_path=None,
            system_prompt=_system_prompt(settings, default=DEMO_PROMPT),
            context_tokens=DEMO_CONTEXT,
            max_tokens=min(settings.max_tokens, DEMO_ANSWER),
            temperature=DEMO_TEMPERATURE if settings.temperature is None else settings.temperature,
            top_p=DEMO_TOP_P if settings.top_p is None else settings.top_p,
        )
    path = settings.local_model_path
    if isinstance(path, str):
        path = await hub.fetch(settings, progress=progress)
        mmproj = settings.local_mmproj_path or hub.mmproj_beside(path)
        settings = replace(settings, local_mmproj_path=mmproj)
    serving = llama_cpp.serve(settings, path=path, parallel=LOCAL_SLOTS, progress=progress)
    server = await stack.enter_async_context(serving)
    if server.context_tokens <= settings.max_tokens:
        raise CannotStart(
            f"MAX_TOKENS={settings.max_tokens} leaves no room for a question in the "
            f"{server.context_tokens} tokens of {server.name}"
        )
    label = f"{server.name} on this machine"
    if path is None:
        label = f"{server.name}, a small demo model: set HF_TOKEN or MODEL_URL for a good one"
    model = await _open_supervised(settings, server, stack)
    return [model], {}, label, settings.system_prompt


async def _open_transformers(
    settings: Settings, stack: AsyncExitStack, progress: Progress
) -> _Choice:
    from bot.local import transformers_model

    serving = transformers_model.serve(settings, progress=progress)
    server = await stack.enter_async_context(serving)
    model = await _open_supervised(settings, server, stack)
    # A dialogue model would repeat the system prompt as its answer.
    default = "" if server.is_dialogue else settings.system_prompt
    label = f"{server.name}, run by transformers on this machine"
    return [model], {}, label, _system_prompt(settings, default=default)


async def _open_supervised(
    settings: Settings, server: LocalServer, stack: AsyncExitStack
) -> ContextWindowModel:
    for name in ("model_fallbacks", "models", "vision_model"):
        if getattr(settings, name):
            text = "%s is for HF_TOKEN and MODEL_URL; only %s answers"
            log.warning(text, name.upper(), server.name)
    return await _open_model(
        replace(
            settings,
            max_tokens=server.max_tokens or settings.max_tokens,
            context_tokens=server.context_tokens,
        ),
        stack,
        await _connect(server.url, server.api_key, server.name, stack),
        # Silence is no failure: it sends at most keep-alives while it reads a long prompt or waits
        # for a free slot. If the process dies, the connection ends.
        idle_timeout=settings.reply_timeout,
    )


async def _open_hugging_face(
    settings: Settings, stack: AsyncExitStack, prices: Prices | None
) -> _Choice:
    from bot.model import huggingface

    names = _names(settings)
    server = ModelServer(ROUTER, settings.hf_token, settings.model_id, own=False)
    connection = await stack.enter_async_context(connect(server))
    # In the background: the bot must start even if Hugging Face does not answer.
    await stack.enter_async_context(running(huggingface.log_availability(connection, names)))
    offered = _offered(settings)
    if prices is not None:
        labels = {it: label_of(settings, it) for it in (*names, *offered)}
        keeping = huggingface.keep_prices(connection, labels, prices)
        await stack.enter_async_context(running(keeping))
    opened = {
        name: await _open_model(settings, stack, connection.for_model(name))
        for name in dict.fromkeys((*names, *offered))
    }
    label = f"{label_of(settings, settings.model_id)} at Hugging Face"
    models = [opened[name] for name in names]
    return models, {name: opened[name] for name in offered}, label, settings.system_prompt


async def _open_server(settings: Settings, stack: AsyncExitStack) -> _Choice:
    # HF_TOKEN is for Hugging Face alone.
    url, key = settings.model_url, settings.model_api_key
    if key:
        warn_if_readable("MODEL_API_KEY", by="MODEL_URL", url=url)
    connection = await _connect(url, key, settings.model_id, stack)
    chosen = _names(settings)
    choices = _offered(settings)
    info = await fetch_server_info(connection)
    settings = _adapted(settings, connection.server, info)
    models = [
        await _open_model(
            *(settings, stack, connection.for_model(name)),
            idle_timeout=IDLE_SECONDS,
            is_watched=True,
        )
        for name in _names(settings)
    ]
    known = dict(zip(_names(settings), models, strict=True)) | {chosen[0]: models[0]}
    offered = {
        name: known.get(_listed(info, name))
        or await _open_offered(settings, connection.for_model(_listed(info, name)), stack)
        for name in choices
    }
    label = f"{models[0].name} at {urlsplit(url).hostname}"
    return models, offered, label, settings.system_prompt


def _offered(settings: Settings) -> list[str]:
    named = [one.name for one in model_choices(settings)]
    return [*named, settings.vision_model] if settings.vision_model else named


def _listed(info: ServerInfo, name: str) -> str:
    """Return the server's name for a model; unlike `name_for`, without its only model."""
    latest = f"{name}:latest"  # Ollama
    return latest if latest in info.models and name not in info.models else name


async def _open_offered(
    settings: Settings, connection: ServerConnection, stack: AsyncExitStack
) -> ContextWindowModel:
    """Open a model of MODELS, or VISION_MODEL."""
    info, name = await fetch_server_info(connection), connection.server.model
    if info.models and name not in info.models:
        log.warning(
            "%s does not serve %s, which MODELS or VISION_MODEL names", connection.server, name
        )
    return await _open_model(
        _with_room(settings, info.context), *(stack, connection), is_watched=True, is_strict=True
    )


async def _connect(url: str, key: str, model: str, stack: AsyncExitStack) -> ServerConnection:
    # With an empty key huggingface_hub would use the saved HF_TOKEN, for any address.
    server = ModelServer(url=url, key=key or "-", model=model, own=True)
    return await stack.enter_async_context(connect(server))


def _names(settings: Settings) -> list[str]:
    return list(dict.fromkeys((settings.model_id, *settings.model_fallbacks)))


def _adapted(settings: Settings, server: ModelServer, info: ServerInfo) -> Settings:
    """Return the settings with the names and limits that the server reports."""
    name, context = info.name_for(settings.model_id), info.context
    if info.trouble:
        log.warning(
            "MODEL_URL: %s; questions are answered as soon as it can be reached", info.trouble
        )
    elif not info.models:
        log.info("%s does not list its models; MODEL_ID is used as it is", server)
    elif name is None:
        log.warning(
            "%s does not serve %s: set MODEL_ID to one of %s",
            *(server, settings.model_id, ", ".join(sorted(info.models)[:_LOGGED_NAMES])),
        )
    settings = replace(
        settings,
        model_id=name or settings.model_id,
        # A second name of the same model would be no fallback.
        model_fallbacks=tuple(info.name_for(each) or each for each in settings.model_fallbacks),
    )
    return _with_room(settings, context)


def _with_room(settings: Settings, context: int | None) -> Settings:
    if context is None:
        return settings
    # At most half of a small context is for the answer: the question must fit, too.
    return replace(settings, max_tokens=min(settings.max_tokens, max(context // 2, 1)))


async def _open_model(
    settings: Settings,
    stack: AsyncExitStack,
    connection: ServerConnection,
    *,
    idle_timeout: float = IDLE_SECONDS,
    is_watched: bool = False,
    is_strict: bool = False,
) -> ContextWindowModel:
    """Open a model.

    If `is_watched`, the server is asked for the context size, which may change. If `is_strict`, no
    other model of the server is used instead. VISION_MODEL sees, whatever its server reports.
    """
    name = connection.server.model
    if settings.vision_model in (name, name.removesuffix(":latest")):
        settings = replace(settings, vision=True)
    watch = ServerWatch(connection) if is_watched else None
    if watch:
        stack.push_async_callback(watch.aclose)
    client = ModelClient(connection, settings, idle_timeout=idle_timeout, strict=is_strict)
    stack.push_async_callback(client.aclose)
    model = ContextWindowModel(
        model=client,
        counter=TokenEstimator(),
        watch=watch,
        prompt_tokens=settings.context_tokens - settings.max_tokens,
        answer_tokens=settings.max_tokens,
    )
    model.name = label_of(settings, name)
    return model
