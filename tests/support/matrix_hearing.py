"""A bot that hears real rooms, and people in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.matrix.client import MatrixClient, connected
from adapters.matrix.inbound import Inbound
from adapters.matrix.platform import MatrixPlatform
from adapters.matrix.sync import Lease, Sync
from bot.access.rules import AccessRules
from bot.concurrency import do_nothing, running
from bot.domain import Turn
from bot.store import Store
from tests.support.fakes import NotedIntake
from tests.support.synapse import Member, Synapse
from tests.support.waiting import until


@dataclass
class Ear:
    """One process that hears an account."""

    client: MatrixClient
    platform: MatrixPlatform
    inbound: Inbound
    lease: Lease
    hearing: asyncio.Task[None]


@dataclass
class Hearing:
    """An account, a person, and a room in which both are."""

    synapse: Synapse
    store: Store
    ann: Member
    bot: Member
    room: str
    intake: NotedIntake
    ears: list[Ear] = field(default_factory=list)

    @property
    def turns(self) -> list[Turn]:
        return self.intake.turns

    @property
    def texts(self) -> list[str]:
        return self.intake.texts

    async def heard(self, *texts: str) -> list[Turn]:
        """Return the turns as soon as these questions have been admitted, and no others."""
        await until(lambda: self.texts == list(texts), why=lambda: self.texts)
        return self.turns

    async def call(self, text: str = "why?", *, by: Member | None = None, **more: Any) -> str:
        """Mention the bot; return the event."""
        who = by or self.ann
        return await who.say(self.room, f"{self.bot.name}: {text}", to=[self.bot], **more)

    @asynccontextmanager
    async def ear(
        self,
        *,
        lease: float = 0.6,
        late_writes: float = 2.0,
        prepare: Callable[[MatrixClient], object] = do_nothing,
    ) -> AsyncIterator[Ear]:
        """Hear in one more process, until the end of the block."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                connected(self.synapse.url, self.bot.token, budgets=None)
            )
            prepare(client)
            platform = MatrixPlatform(client)
            inbound = Inbound(
                platform, intake=self.intake, store=self.store, late_writes=late_writes
            )
            held = Lease(self.store, account=client.user_id, seconds=lease)
            sync = Sync(platform, inbound, held)
            await stack.enter_async_context(platform.jobs)
            hearing = await stack.enter_async_context(running(sync.run()))
            await until(lambda: not platform.downtime.seconds())
            ear = Ear(client, platform, inbound, held, hearing)
            self.ears.append(ear)
            yield ear


async def hearing_of(
    synapse: Synapse, store: Store, *, access: AccessRules | None = None, joins: bool = True
) -> Hearing:
    """Make an account and a room; the bot hears nothing before `ear`."""
    ann, bot = await synapse.person("ann"), await synapse.person("parley")
    room = await ann.create_room(bot, name="Garden")
    if joins:
        await bot.join(room)
    return Hearing(synapse, store, ann, bot, room, NotedIntake(store, access=access))
