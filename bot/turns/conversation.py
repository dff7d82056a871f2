"""The one path through a turn: history, prompt, model, reply, commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

from bot.concurrency import cancelled
from bot.domain import Delta, Exchange, LeftOut, Page, Shown, Start
from bot.errors import GivenUp, MessageGone, WriteRefused
from bot.ports import Model, Surface
from bot.reply.draft import given_up, shortened
from bot.reply.edit_budget import EditBudgets
from bot.reply.writer import Reply, apologize, restore
from bot.turns.history import History
from bot.turns.lease import Lease
from bot.turns.prompt import compose


class Conversation:
    """Answers turns that a worker has taken.

    What was saved is taken up to `longest` characters, which is more than an answer has.
    """

    def __init__(
        self,
        *,
        history: History,
        model: Model,
        budgets: EditBudgets,
        system_prompt: str,
        patience: float,
        longest: int,
    ) -> None:
        self._history = history
        self._model = model
        self._budgets = budgets
        self._system_prompt = system_prompt
        self._patience = patience
        self._longest = longest

    @asynccontextmanager
    async def asking(self, lease: Lease) -> AsyncIterator[AsyncGenerator[Delta]]:
        """Ask the model at once: it thinks while the platform opens the surface.

        Yields what it says. Raises StoreUnavailable.
        """
        remembered = await self._history.read(lease.turn.key)
        prompt = compose(
            system=self._system_prompt,
            # Its own is there when the turn is answered anew.
            exchanges=[
                replace(one, answer=one.answer[: self._longest])
                for one in remembered
                if one.turn_id != lease.turn.id
            ],
            turn=lease.turn,
        )
        said = self._model.stream(prompt)
        if lease.turn.left_out:
            said = _short_of(said, lease.turn.left_out)
        async with _begun(said) as deltas:
            yield deltas

    async def answer(self, lease: Lease, surface: Surface, deltas: AsyncGenerator[Delta]) -> None:
        """Show the model's answer on the surface and end the turn.

        Raises what keeps the turn from ending: SurfaceError, StoreUnavailable, LeaseLost.
        """
        reply = self._reply(lease, surface, self._left(lease))
        await self._finish(lease, await reply.stream(deltas))

    async def end(self, lease: Lease, surface: Surface) -> None:
        """Show the end that an earlier try had come to, asking nobody; raises as `answer`."""
        await self._finish(lease, await self._reply(lease, surface, self._left(lease)).end())

    async def give_up(self, lease: Lease, surface: Surface) -> None:
        """Show an apology instead of an answer and end the turn as dead. Raises as `answer`."""
        # An end that could not be shown in all its tries is none.
        reply = self._reply(lease, surface, replace(self._left(lease), outcome=""))
        await self._finish(lease, await reply.stream(_no_answer()))

    async def leave(self, lease: Lease) -> None:
        """End a turn as failed whose reply can go no further, with what it has shown. LeaseLost.

        A former answer stays remembered, unless a whole new one is in its place.
        """
        shown, former = self._left(lease), self._former(lease)
        if former and not shown.outcome:
            shown = replace(shown, text=shown.text or former, said="")
        await self._leave(lease, replace(shown, outcome="failed"))

    async def abandon(self, lease: Lease) -> None:
        """End a turn as dead with the end that its messages have yet to show. LeaseLost.

        That is the one it had come to, or an apology.
        """
        left = self._left(lease)
        shown = left if left.outcome else given_up(left, self._former(lease))
        await self._leave(lease, replace(shown, outcome="dead"))

    async def apologize(self, surface: Surface) -> str:
        """Post an apology alone and return its message id. Raises SurfaceError."""
        return await apologize(surface=surface, budgets=self._budgets, patience=self._patience)

    async def restore(self, ended: Shown, surface: Surface, *, posted: Sequence[str]) -> None:
        """Write an ended reply once more, over what may have landed late. Raises SurfaceError.

        Of what was `posted`, messages that are no pages of it go.
        """
        for message_id in posted:
            if message_id not in ended.pages:
                with suppress(MessageGone, WriteRefused):
                    await surface.edit(message_id, Page(0, "", final=True))
        ended = shortened(ended, self._longest)
        await restore(ended, surface=surface, budgets=self._budgets, patience=self._patience)

    def _reply(self, lease: Lease, surface: Surface, left: Shown) -> Reply:
        return Reply(
            turn_id=lease.turn.id,
            surface=surface,
            budgets=self._budgets,
            left=left,
            replaced_answer=self._former(lease),
            stop=lease.stop,
            save=lease.save,
            patience=self._patience,
        )

    def _left(self, lease: Lease) -> Shown:
        return shortened(lease.shown, self._longest)

    def _former(self, lease: Lease) -> str:
        return lease.taken.former[: self._longest]

    async def _leave(self, lease: Lease, shown: Shown) -> None:
        if not shown.pages:
            # What was saved before a first post that failed stands nowhere.
            shown = replace(shown, text="", said="")
        await self._finish(lease, shown)

    async def _finish(self, lease: Lease, shown: Shown) -> None:
        turn = lease.turn
        exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, shown.said)
        await lease.finish(shown, exchange if shown.said.strip() else None)


@asynccontextmanager
async def _begun(stream: AsyncGenerator[Delta]) -> AsyncIterator[AsyncGenerator[Delta]]:
    first = asyncio.create_task(_next(stream))
    try:
        yield _from(first, stream)
    finally:
        await cancelled(first)
        await stream.aclose()


async def _from(
    first: asyncio.Task[Delta | None], stream: AsyncGenerator[Delta]
) -> AsyncGenerator[Delta]:
    delta = await first
    while delta is not None:
        yield delta
        delta = await _next(stream)


async def _next(stream: AsyncGenerator[Delta]) -> Delta | None:
    return await anext(stream, None)


async def _short_of(stream: AsyncGenerator[Delta], left_out: int) -> AsyncGenerator[Delta]:
    """Count what had been left out of the question before the model shortened it."""
    told = False
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            if isinstance(delta, Start):
                told = False
            elif isinstance(delta, LeftOut):
                told, delta = True, LeftOut(delta.characters + left_out)
            elif not told:
                told = True
                yield LeftOut(left_out)
            yield delta


async def _no_answer() -> AsyncGenerator[Delta]:
    raise GivenUp("every try at this turn failed")
    yield ""
