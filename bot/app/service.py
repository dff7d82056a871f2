"""Serves people on the configured platforms until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from bot import __version__
from bot.access.preferences import Ability, PreferenceStore
from bot.access.quotas import MILLION, Price, Prices, Quota
from bot.access.rules import AccessRules
from bot.app import http, metrics
from bot.app.assistant import (
    IDLE_SECONDS,
    Assistant,
    calls_tools,
    is_demo,
    label_of,
    model_choices,
    open_assistant,
)
from bot.app.platforms import (
    WORKER,
    Platforms,
    all_specs,
    check_settings,
    open_platforms,
    own_names,
    removing_platforms,
    servers,
    uses_terminal,
)
from bot.app.watched import watched
from bot.concurrency import do_nothing, running
from bot.domain import Preferences
from bot.errors import CannotStart, StoreUnavailable
from bot.intake.intake import Intake
from bot.local import hardware
from bot.platform_spec import Process, Service
from bot.reply.edit_budget import EditBudgets
from bot.store import connect
from bot.tools.earlier import EarlierMessages
from bot.tools.toolbox import Toolbox, listed
from bot.turns.allowed import AllowedTools
from bot.turns.context import ContextReader
from bot.turns.conversation import Conversation
from bot.turns.files import FileReader
from bot.turns.notices import QuotaNotices
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from bot.turns.titles import TitleMaker
from bot.turns.worker import Worker
from config.settings import Settings

log = logging.getLogger("bot")

LIMITS = Limits(waiting_per_thread=5, waiting_per_person=10, waiting=2000, running_per_person=3)
DRAIN_SECONDS = 20.0  # of the 25 in which a process must end after SIGTERM
CANCEL_SECONDS = 4.0  # before a cancellation is repeated; Slack's listener needs up to three to end
_ABILITIES_SECONDS = 60.0  # until the models are asked again what they can do
_FILES, _FILES_PER_ANSWER = 500, 2  # an answer's own connections to its model and its platform


def choose_roles(named: Sequence[str], settings: Settings) -> frozenset[str]:
    """Return the named roles, or else the configured platforms and a worker."""
    if named:
        return frozenset(named)
    specs = all_specs()
    served = [spec.name for spec in specs if spec.own(settings).is_configured]
    served = served or [spec.name for spec in specs if spec.served_alone()]
    if served:
        return frozenset((*served, WORKER))
    credentials = " or ".join(spec.credential for spec in specs if spec.credential)
    raise CannotStart(
        f"there is nothing to do: set {credentials}, or start the bot in a terminal or behind a "
        "pipe"
    )


def needs_all(named: Sequence[str], settings: Settings) -> bool:
    """Return whether the process ends if one of its platforms cannot start."""
    return bool(named) if settings.platforms_required is None else settings.platforms_required


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    roles: frozenset[str],
    need_all: bool = False,
    started: Callable[[str], object] = do_nothing,
    drain_seconds: float = DRAIN_SECONDS,
) -> None:
    """Serve the roles until `stop` is set; replies get `drain_seconds` to end.

    `started` is called once with the address of the HTTP server, or "". With `need_all`, each
    platform must start; else one of them is enough. Raises CannotStart.
    """
    _raise_file_limit(settings)
    check_settings(settings, roles)
    async with watched(settings), AsyncExitStack() as stack:
        opening = _open(
            settings, stop, stack, roles, need_all=need_all, drain_seconds=drain_seconds
        )
        async with running(stop.wait()) as stopping, running(opening) as opened:
            await asyncio.wait({stopping, opened}, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                log.info("Stopped before the start was complete")
                return
            jobs, address = opened.result()
        started(address)
        await until_stopped({name: start() for name, start in jobs.items()}, stop)
    log.info("Stopped")


async def until_stopped(
    jobs: Mapping[str, Service], stop: asyncio.Event, *, cancel_seconds: float = CANCEL_SECONDS
) -> None:
    """Run jobs until `stop` is set or one of them ends, then end them all.

    The end of a local platform's job, such as the terminal's, stops the others only if all of them
    are local. Raises the error of a job.
    """
    local = {spec.name for spec in all_specs() if spec.local}
    stopping = asyncio.create_task(stop.wait())
    tasks = {name: asyncio.create_task(job) for name, job in jobs.items()}
    waiting: set[asyncio.Task[Any]] = {stopping, *tasks.values()}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if done - {tasks.get(name) for name in local} or tasks.keys() <= {*local, WORKER}:
                break
    finally:
        stop.set()
        stopping.cancel()
        # No new turns are admitted while the worker finishes its replies.
        pending = {task for name, task in tasks.items() if name != WORKER}
        # discord.py waits by `asyncio.wait_for`, which may lose a cancellation (Python 3.11).
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=cancel_seconds)
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    for task in tasks.values():
        if not task.cancelled():
            task.result()


async def _open(
    settings: Settings,
    stop: asyncio.Event,
    stack: AsyncExitStack,
    roles: frozenset[str],
    *,
    need_all: bool,
    drain_seconds: float,
) -> tuple[dict[str, Callable[[], Service]], str]:
    """Return a factory for the service of each role, and the address of the HTTP server."""
    store = await stack.enter_async_context(
        connect(
            url=settings.redis_url, data_dir=settings.data_dir, replicas=settings.redis_replicas
        )
    )
    budgets = EditBudgets(store=store, lease_seconds=settings.lease_seconds)
    prices = _prices(settings)
    assistant: Assistant | None = None
    # The terminal brings its own worker.
    if WORKER in roles or uses_terminal(roles):
        opening = open_assistant(settings, stop, at_terminal=uses_terminal(roles), prices=prices)
        assistant = await stack.enter_async_context(opening)
    queue = TurnQueue(
        store=store,
        worker=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
        limits=limits_of(settings),
        lease_seconds=settings.lease_seconds,
        **settings.keeping,
        own_names=own_names(),
        removes_on=removing_platforms(),
    )
    history = History(store=store, **settings.keeping)
    models = model_choices(settings, assistant)
    intake = Intake(
        queue=queue,
        history=history,
        follow=settings.follow_threads,
        access=_access(settings),
        longest=settings.max_tokens,
        preferences=PreferenceStore(store=store, models=models, max_tokens=settings.max_tokens),
        tools=listed(settings) if calls_tools(settings) or not assistant else (),
        prices=prices,
        personas=dict(settings.persona_texts),
    )
    process = Process(
        settings=settings,
        roles=roles,
        store=store,
        budgets=budgets,
        intake=intake,
        serve_pages=http.serve_pages,
        trust=http.trust,
        model=models[0].label if models else "",
        answers_from=assistant.label if assistant else "",
        is_demo=bool(assistant) and is_demo(settings),
        patience=settings.reply_timeout + IDLE_SECONDS,
        need_all=need_all,
    )
    if assistant and len(models) > 1:
        telling = _tell_abilities(intake.preferences, assistant)
        await stack.enter_async_context(running(telling))
    platforms = await open_platforms(process, stack, answers=assistant is not None)
    address = ""
    if "PORT" in servers(settings, roles):
        address = await stack.enter_async_context(_http(process, platforms, queue, stop))
    jobs = dict(platforms.listeners)
    if assistant:
        worker = Worker(
            queue=queue,
            platforms=platforms.platforms,
            conversation=_conversation(process, assistant, queue, history, platforms),
            capacity=settings.capacity,
            lease_seconds=settings.lease_seconds,
            drain_seconds=drain_seconds,
            prices=prices,
            notices=_notices(settings, queue, platforms),
            titles=_titles(assistant, queue, history, platforms, prices),
        )
        jobs[WORKER] = partial(worker.run, stop)
    log.info("Running as %s", ", ".join(sorted(roles - platforms.off.keys())))
    return jobs, address


async def _tell_abilities(preferences: PreferenceStore, assistant: Assistant) -> None:
    """Note again and again what the models can do, for the lists from which people choose."""
    while True:
        found = dict[str, list[Ability]]()
        for one in preferences.models:
            model = assistant.model.chosen(Preferences(model=one.name))
            sees, takes = await model.sees(), await model.takes_tools()
            # As the Toolbox offers them.
            uses = assistant.settings.names_tools if takes is None else takes
            found[one.name] = ["pictures"] if sees else []
            found[one.name] += ["tools"] if uses and assistant.tool_sources else []
        with suppress(StoreUnavailable):
            await preferences.note_abilities(found)
        await asyncio.sleep(_ABILITIES_SECONDS)


def limits_of(settings: Settings) -> Limits:
    """Return the limits of the queue."""
    return replace(LIMITS, calls_per_day=settings.tool_calls_per_day)


def _conversation(
    process: Process,
    assistant: Assistant,
    queue: TurnQueue,
    history: History,
    platforms: Platforms,
) -> Conversation:
    settings = process.settings
    return Conversation(
        history=history,
        model=assistant.model,
        budgets=process.budgets,
        system_prompt=assistant.system_prompt,
        patience=settings.reply_timeout,
        context=ContextReader(queue=queue, history=history, most=settings.thread_context),
        files=FileReader(most=settings.files_per_question, most_mb=settings.file_max_mb),
        tools=_toolbox(assistant, queue, history, platforms),
    )


def _notices(settings: Settings, queue: TurnQueue, platforms: Platforms) -> QuotaNotices | None:
    if settings.server_tokens_per_day is None and settings.server_money_per_month is None:
        return None
    return QuotaNotices(queue.script, tell=partial(platforms.tell, settings.admins))


def _titles(
    assistant: Assistant, queue: TurnQueue, history: History, platforms: Platforms, prices: Prices
) -> TitleMaker | None:
    settings = assistant.settings
    # The demo model, and one that only talks, would write worse ones than the question's beginning.
    if is_demo(settings) or settings.transformers_model or not platforms.untitled:
        return None
    return TitleMaker(
        untitled=platforms.untitled,
        model=assistant.model,
        queue=queue,
        history=history,
        # All answers of a model on this machine share its processors.
        beside=0 if settings.local_model_path else settings.capacity // 2,
        prices=prices,
    )


def _toolbox(
    assistant: Assistant, queue: TurnQueue, history: History, platforms: Platforms
) -> Toolbox | None:
    settings = assistant.settings
    if not assistant.tool_sources:
        return None
    earlier = EarlierMessages(
        # With THREAD_CONTEXT=0 nothing is read of others.
        platforms=platforms.platforms if settings.thread_context else {},
        is_seen=history.is_seen,
        withheld=queue.lookup.withheld,
    )
    return Toolbox(
        (earlier, *assistant.tool_sources),
        is_always_allowed=AllowedTools(queue.leases.store).is_allowed,
        consent_seconds=settings.consent_seconds,
        is_tried=settings.names_tools,
    )


def _http(
    process: Process, platforms: Platforms, queue: TurnQueue, stop: asyncio.Event
) -> AbstractAsyncContextManager[str]:
    names, settings = [spec.name for spec in all_specs()], process.settings
    return http.serve(
        settings,
        store=process.store,
        downtimes=platforms.downtimes,
        posts=platforms.posts,
        gets=platforms.gets,
        stopping=stop,
        refresh_metrics=partial(
            metrics.refresh,
            *(queue, names, platforms.downtimes),
            version=__version__,
            embedded_in=None if settings.redis_url else settings.data_dir,
        ),
    )


def _access(settings: Settings) -> AccessRules:
    return AccessRules(
        servers=frozenset(settings.allowed_servers),
        channels=frozenset(settings.allowed_channels),
        people=frozenset(settings.allowed_people),
        roles=frozenset(settings.allowed_roles),
        blocked=frozenset(settings.blocked_people),
        admins=frozenset(settings.admins),
        direct_messages=settings.direct_messages,
        quota=Quota(
            settings.questions_per_day,
            settings.tokens_per_day,
            settings.server_tokens_per_day,
            _millionths(settings.money_per_month),
            _millionths(settings.server_money_per_month),
        ),
    )


def _millionths(money: float | None) -> int | None:
    return None if money is None else round(money * MILLION)


def _prices(settings: Settings) -> Prices:
    """Return the prices that the operator has set, by the models' names and labels."""
    named = {name: Price(*both) for name, *both in settings.prices}
    return Prices({label_of(settings, name): one for name, one in named.items()} | named)


def _raise_file_limit(settings: Settings) -> None:
    wanted = _FILES + _FILES_PER_ANSWER * settings.capacity
    allowed = hardware.allow_files(wanted)
    if allowed is not None and allowed < wanted:
        log.warning(
            "CAPACITY=%d may need %d open files and sockets, and this process may have %d:"
            " raise the limit (ulimit -n, LimitNOFILE) or lower CAPACITY",
            *(settings.capacity, wanted, allowed),
        )
