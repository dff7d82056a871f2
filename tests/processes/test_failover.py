"""Primaries that are killed while people ask: nothing that was acknowledged is lost.

FAILOVERS in the environment says how often, PEOPLE how many ask at once, and REPLICAS is the bot's
REDIS_REPLICAS: with 0, what is lost is counted. What people miss is less than what the primaries
have lost: a reply that has begun goes on, and a catch-up may bring a question again. So the direct
messages to Slack that were acknowledged, and that the next primary does not know, are counted as
well. The defaults are for every day.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

from tests.chaos.fleet import Crew, fleet
from tests.chaos.people import until_true
from tests.chaos.screens import ALLOWED, read_talk
from tests.chaos.talks import LONG, DiscordTalk, SlackTalk, Talk, answer
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.limits import Limits
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import discord_variables, slack_variables
from tests.support.sentinels import Watched, settled, watched
from tests.support.waiting import until

FAILOVERS = int(os.environ.get("FAILOVERS", "1"))
PEOPLE = int(os.environ.get("PEOPLE", "8"))
REPLICAS = os.environ.get("REPLICAS", "1")
ROLES = (("discord", "slack", "worker"), ("discord", "slack", "worker"))
CUT = 2.0  # seconds from the last word to the replica until the primary is killed
LONGEST = 8  # questions of a conversation
# Seconds in which Slack has told of a question for the last time, and for which a person waits for
# an answer. What is lost without replicas is not waited for.
RESTING, PATIENCE = (330.0, 90.0) if REPLICAS != "0" else (100.0, 20.0)
LEASE = 3.0  # seconds; as long as by default, so that a busy machine does not lose leases
MENDING = 20 * LEASE  # seconds in which late messages are deleted


async def test_failovers_lose_and_double_nothing_that_replicas_have(
    data_dir: Path, model: ModelEmulator
) -> None:
    talks: list[Talk] = []
    model.answer, model.chunk, model.delay = answer, 12, 0.1
    limits = Limits(thread=(1000, 300.0))  # nobody waits for the quota of new threads
    async with (
        DiscordEmulator(limits=limits) as discord,
        SlackEmulator() as slack,
        watched(data_dir) as servers,
    ):
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"REDIS_URL": servers.url, "REDIS_REPLICAS": REPLICAS}
        variables["LEASE_SECONDS"] = str(LEASE)
        async with fleet(data_dir, [Crew(roles, variables, {}) for roles in ROLES]) as bots:
            await until(lambda: len(bots.up()) == len(ROLES), why=lambda: bots.texts)
            await until(discord.connected.is_set)
            await until(slack.connected.is_set)
            is_over, away, unknown = asyncio.Event(), list[float](), set[str]()
            # Answers of several messages take long.
            numbers = (it for it in count(1) if it % LONG or FAILOVERS > 1)
            kinds: list[Callable[[int], Talk]] = [
                partial(DiscordTalk, discord, _nothing, "DM"),
                partial(SlackTalk, slack, _nothing, "DM"),
                partial(DiscordTalk, discord, _nothing, "thread"),
                partial(SlackTalk, slack, _nothing, "thread"),
            ]

            async def ask(begin: Callable[[int], Talk]) -> None:
                while not is_over.is_set():
                    talks.append(talk := begin(len(talks)))
                    while len(talk.asked) < LONGEST and not is_over.is_set():
                        if await talk.ask(next(numbers)):
                            await until_true(
                                lambda: talk.is_answered() or is_over.is_set(), within=PATIENCE
                            )
                        if not talk.is_answered():
                            break

            async def strike() -> None:
                for _ in range(FAILOVERS):
                    away.append(await fail_over(servers, acknowledged, unknown))
                is_over.set()

            def acknowledged() -> list[str]:
                dms = (it for it in talks if isinstance(it, SlackTalk))
                return [turn for talk in dms for turn in talk.acknowledged()]

            async with asyncio.TaskGroup() as group:
                group.create_task(strike())
                for person in range(PEOPLE):
                    group.create_task(ask(kinds[person % len(kinds)]))
            with suppress(TimeoutError):
                async with asyncio.timeout(RESTING):
                    while not all(it.is_answered() and not it.is_stoppable() for it in talks):
                        await asyncio.sleep(0.1)
            with suppress(TimeoutError):
                async with asyncio.timeout(MENDING):
                    while any(read_talk(it).extras for it in talks):
                        await asyncio.sleep(0.1)
            logs = "\n".join(bots.texts)

    screens = [(talk, read_talk(talk)) for talk in talks]
    ends = Counter(seen.end for _, screen in screens for seen in screen.turns)
    extras = Counter(kind for _, screen in screens for kind, _ in screen.extras)
    bad = [
        f"{talk.name}, {it.number}: {it.end}"
        for talk, screen in screens
        for it in screen.turns
        if it.end not in ALLOWED
    ]
    bad += [f"{talk.name}: {': '.join(it)}" for talk, screen in screens for it in screen.extras]
    away.sort()
    print(
        f"failovers {FAILOVERS}, REDIS_REPLICAS={REPLICAS}, people {PEOPLE}: turns "
        f"{sum(ends.values())}, {dict(ends)}, besides {dict(extras)}, "
        f"{len(unknown)} acknowledged ones unknown to the next primary, without a primary for "
        f"{away[len(away) // 2]:.1f} s (median) and {away[-1]:.1f} s (worst)"
    )
    before, found, after = logs.partition("Traceback")
    assert not found, before[-500:] + found + after[:4000]
    assert REPLICAS == "0" or not (bad or unknown), (bad, unknown)
    assert ends["whole"] > sum(ends.values()) // 2


async def fail_over(
    servers: Watched, acknowledged: Callable[[], list[str]], unknown: set[str]
) -> float:
    """Cut the primary off, kill it while turns are answered, and return how long there was none.

    The acknowledged turns that the next one does not know are added to `unknown`.
    """
    before = await servers.primary()

    async def is_busy() -> bool:
        nonlocal before
        # On a busy machine the Sentinels may have failed over once more.
        before = await servers.primary()
        has = await before.has_replica()
        return has and int(await before.redis.zcard("parley:{0}:open")) >= PEOPLE // 2

    await settled(is_busy)
    await before.cut_off()
    await asyncio.sleep(CUT)
    began, known = time.monotonic(), acknowledged()
    after = await servers.fail_over(before)
    lasted = time.monotonic() - began
    pipe = after.redis.pipeline(transaction=False)
    for turn in known:
        pipe.exists(f"parley:{{0}}:turn:{turn}")
    has = await pipe.execute()
    unknown |= {one for one, is_known in zip(known, has, strict=True) if not is_known}
    await servers.join_again(before, after)
    return lasted


async def _nothing(_: str) -> None:
    pass
