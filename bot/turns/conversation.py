"""Answers a turn under its lease: history, prompt, model, reply, end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial

from prometheus_client import Counter

from bot.concurrency import empty_stream, prefetch
from bot.domain import (
    ConsentNeeded,
    ContextUnread,
    Delta,
    Exchange,
    FilesRead,
    Message,
    Purpose,
    Reading,
    ReadingFiles,
    Shown,
    Turn,
)
from bot.errors import StoreUnavailable
from bot.ports import Model, OnThought, Platform, Surface
from bot.reply.draft import Draft, fitted, given_up
from bot.reply.edit_budget import EditBudgets
from bot.reply.freshness import Freshness
from bot.reply.thoughts import Thoughts
from bot.reply.writer import Callbacks, Reply, ReplyTiming
from bot.text.files import plain_name
from bot.text.prompt import SystemPrompt, compose
from bot.tools.loop import ToolLoop
from bot.tools.steps import Steps, effects_before, unknown_calls
from bot.tools.toolbox import Toolbox
from bot.tools.toolset import Asked
from bot.tracing import span
from bot.turns.context import ContextReader
from bot.turns.files import FileReader, describe
from bot.turns.journal import TurnJournal
from bot.turns.lease import Attempt
from bot.turns.records import History

log = logging.getLogger(__name__)

_RESUMED_PATIENCE = 5.0  # seconds, with servers whose tools have been called already
_DESCRIBING_SECONDS = 60.0  # all pictures of a question: its thread waits

_ENDED = Counter("parley_turns_total", "Turns that ended in this process", ["platform", "outcome"])


class Conversation:
    """Answers turns that a worker has taken."""

    def __init__(
        self,
        *,
        history: History,
        model: Model,
        budgets: EditBudgets,
        system_prompt: SystemPrompt,
        patience: float,
        context: ContextReader,
        files: FileReader,
        tools: Toolbox | None = None,
    ) -> None:
        self._history = history
        self._model = model
        self.budgets = budgets
        self._system_prompt = system_prompt
        self.patience = patience
        self._context = context
        self._files = files
        self._tools = tools

    async def answer(self, attempt: Attempt, platform: Platform) -> None:
        """Show the model's answer, or the whole saved text, and end the turn.

        If a person must allow a call first, the turn is given back until then. Before the end, the
        pictures that the model has seen are described. Raises SurfaceError, StoreUnavailable,
        LeaseLost and QuestionEdited; the turn has then not ended.
        """
        taken, stream, is_whole = attempt.lease.taken, empty_stream(), bool(attempt.shown.outcome)
        thoughts = Thoughts(taken.thought)
        if not is_whole:
            remembered = await self._history.read(attempt.turn.key)
            stream = self._deltas(attempt, platform, remembered, thoughts)
        is_remembered = self._history.remembers_in(attempt.turn.key)
        opening = platform.surface(taken.placed, taken.purpose)
        async with AsyncExitStack() as stack:
            # The model computes while the platform opens the surface.
            deltas = await stack.enter_async_context(prefetch(stream))
            surface = await stack.enter_async_context(opening)
            reply = self._reply(attempt, surface, thoughts)
            with span("write") as writing:
                shown = await reply.stream(deltas)
                figures = reply.freshness
                writing.note(outcome=shown.outcome, writes=figures.writes, limited=figures.limited)
            if (waits := attempt.consent) and not shown.outcome:
                # Afterwards, it would take the sign of work from the next attempt.
                await stack.aclose()
                await attempt.lease.suspend(waits.call_id, seconds=waits.seconds)
                return
            if shown.said.strip() and shown.outcome == "done" and is_remembered:
                if is_whole and _exchange(attempt).all_files:
                    await self._fetch_pictures(attempt, platform)
                if attempt.files:
                    # The answer is whole, so the platform shows no sign of work any more.
                    await stack.aclose()
                    await self._describe(attempt)
            await self._finish(attempt, shown, reply.freshness)
            attempt.unclosed = reply.unclosed

    async def end_refused(self, attempt: Attempt) -> None:
        """End a turn as failed, with the text that is shown, if the platform refuses more.

        The previous answer stays remembered unless a whole new one has replaced it. Raises
        LeaseLost.
        """
        shown, previous = attempt.shown, attempt.lease.taken.previous_answer
        if previous and not shown.outcome:
            shown = replace(shown, text=shown.text or previous, said="")
        await self._finish_unseen(attempt, replace(shown, outcome="failed", end="failed"))

    async def end_unshown(self, attempt: Attempt, platform: Platform | None) -> None:
        """End a turn as dead, with what a repair will show. Raises PlaceGone and LeaseLost.

        That is the text that was saved, as far as the `platform` can show it, or an apology.
        """
        shown, taken = attempt.shown, attempt.lease.taken
        if not shown.outcome:
            shown = given_up(shown, taken.previous_answer, unknown_calls(taken.steps))
        if platform:
            async with platform.surface(taken.placed, Purpose.RESTORE) as surface:
                shown = fitted(shown, limit=surface.limit, measure=surface.measure)
        await self._finish_unseen(attempt, replace(shown, outcome="dead"))

    async def _deltas(
        self,
        attempt: Attempt,
        platform: Platform,
        remembered: Sequence[Exchange],
        on_thought: OnThought,
    ) -> AsyncGenerator[Delta]:
        """Read messages of others and files if needed, and ask the model.

        Raises ModelError, LeaseLost and StoreUnavailable.
        """
        turn = attempt.turn
        with span("prompt"):
            if attempt.context.messages is None and (
                context := await self._context.read(turn, platform, remembered)
            ):
                await attempt.save_context(context)
            # A regenerated turn is in the history.
            before = [one for one in remembered if one.turn_id != turn.id]
            asked = _exchange(attempt)
            known = await self._history.file_texts(*before, asked)
            if missing := self._files.missing(asked, known):
                yield ReadingFiles(tuple(plain_name(one.name) for one in missing))
            files = await self._files.read(asked, known, platform, attempt.lease.save_file)
            if missing:
                yield ReadingFiles(())
            prompt = compose(
                system=self._system_prompt.for_turn(turn),
                exchanges=before,
                turn=replace(turn, quote=asked.quote),
                context=asked.context,
                files=files,
                zone=self._system_prompt.zone(turn),
            )
            if attempt.context.is_incomplete:
                yield ContextUnread()
            shown = replace(turn, quote=asked.quote, context=asked.context)
            asked_for = Asked(shown, before, files)
            if attempt.lease.taken.steps:
                asked_for = replace(asked_for, patience=_RESUMED_PATIENCE)
            stream = await self._stream(attempt, prompt, asked_for, on_thought)
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                attempt.meter.note(delta)
                if isinstance(delta, Reading) and not delta.is_answered:
                    # If this process dies, the next attempt knows that there was a request.
                    await attempt.lease.save_used()
                    # It is for the meter alone: `prefetch` asks only for the first delta.
                    continue
                if isinstance(delta, FilesRead) and any(one.picture for one in delta.files):
                    attempt.files = files
                if isinstance(delta, ConsentNeeded):
                    attempt.consent = delta
                yield delta

    async def _stream(
        self,
        attempt: Attempt,
        prompt: Sequence[Message],
        asked: Asked,
        on_thought: OnThought,
    ) -> AsyncGenerator[Delta]:
        """Ask the model, with tools if there are any for the question."""
        turn, lease, tools = attempt.turn, attempt.lease, self._tools
        model = self._model.chosen(turn.preferences)
        offered = await tools.offered(asked, model) if tools else ()
        if not tools or not (offered or lease.taken.steps):
            return model.stream(prompt, on_thought=on_thought)
        loop = ToolLoop(
            model=model,
            steps=Steps(TurnJournal(lease), turn_id=turn.id),
            offered=offered,
            turn=turn,
            is_always_allowed=tools.is_always_allowed,
            consent_seconds=tools.consent_seconds,
            reply_seconds=self.patience,
            is_foreign=asked.is_foreign,
            on_thought=on_thought,
        )
        return loop.stream(prompt)

    async def _fetch_pictures(self, attempt: Attempt, platform: Platform) -> None:
        """Fetch pictures again that an earlier attempt may not have described."""
        asked = _exchange(attempt)
        with suppress(StoreUnavailable):
            known = await self._history.file_texts(asked)
            save = attempt.lease.save_file
            attempt.files = await self._files.read(asked, known, platform, save)

    async def _describe(self, attempt: Attempt) -> None:
        """Save what new pictures show, as far as the model says it. Raises LeaseLost."""
        chosen, meter = attempt.turn.preferences, attempt.meter
        deadline = asyncio.get_running_loop().time() + _DESCRIBING_SECONDS
        for file in _exchange(attempt).all_files:
            found = attempt.files[file.id]
            if not found.picture or found.text:
                continue
            text = await describe(self._model, found, chosen=chosen, meter=meter, deadline=deadline)
            if text:
                await attempt.lease.save_file(file, text)

    async def _claims_truncation_notice(self, turn: Turn) -> bool:
        with suppress(StoreUnavailable):
            return await self._history.claim_truncation_notice(turn.key, turn.id)
        return False

    def _reply(self, attempt: Attempt, surface: Surface, thoughts: Thoughts) -> Reply:
        taken = attempt.lease.taken
        return Reply(
            turn_id=attempt.turn.id,
            surface=surface,
            budgets=self.budgets,
            draft=Draft(
                limit=surface.limit,
                measure=surface.measure,
                shows_whole=surface.shows_whole,
                earlier=attempt.shown,
                previous_answer=taken.previous_answer,
                left_out=attempt.turn.left_out,
                remembered=self._history.remembers_in(attempt.turn.key),
                unknown=unknown_calls(taken.steps),
                called_before=effects_before(taken.steps, taken.effects),
                thoughts=thoughts,
                shows_thoughts=surface.shows_thoughts,
            ),
            callbacks=Callbacks(
                save=attempt.save,
                before_retry=attempt.before_retry,
                claims_truncation_notice=partial(self._claims_truncation_notice, attempt.turn),
            ),
            stop=attempt.lease.stop,
            timing=ReplyTiming(patience=self.patience),
        )

    async def _finish_unseen(self, attempt: Attempt, shown: Shown) -> None:
        if not shown.message_ids:
            shown = replace(shown, text="", said="")  # the first post failed: nothing is shown
        await self._finish(attempt, shown)

    async def _finish(
        self, attempt: Attempt, shown: Shown, freshness: Freshness | None = None
    ) -> None:
        turn = attempt.turn
        model = shown.model or self._model.chosen(turn.preferences).name
        exchange = replace(_exchange(attempt), answer=shown.said, model=model)
        await attempt.finish(shown, exchange if shown.said.strip() else None, model=model)
        _report_end(attempt, shown, model=model, freshness=freshness)


def _exchange(attempt: Attempt) -> Exchange:
    """Return the question of an attempt, with what its prompt shows beside it."""
    turn, context = attempt.turn, attempt.context
    return Exchange(
        turn_id=turn.id,
        person=turn.person,
        asked_at=turn.asked_at,
        question=turn.text,
        answer="",
        quote=context.quote,
        context=context.messages or (),
        files=turn.files,
    )


def _report_end(attempt: Attempt, shown: Shown, *, model: str, freshness: Freshness | None) -> None:
    """Count an ended turn, and log its figures: ids and numbers, never message text.

    Times are in seconds since the turn was admitted. Figures of earlier attempts are not included.
    """
    taken, turn, key = attempt.lease.taken, attempt.turn, attempt.turn.key
    _ENDED.labels(key.platform, shown.outcome).inc()
    figures: dict[str, str | int | float] = {
        "platform": key.platform,
        "server": key.workspace,
        "channel": key.channel,
        "person": turn.person.id,
        "model": model,
        "outcome": shown.outcome,
        "tries": taken.attempts,
        "waited": round(taken.waited, 3),
    }
    since = attempt.began_at - taken.waited
    if freshness and freshness.first_text_at:
        figures["first_text"] = round(freshness.first_text_at - since, 3)
    figures["seconds"] = round(asyncio.get_running_loop().time() - since, 3)
    used = attempt.meter.used
    figures |= {"read": used.read, "written": used.written}
    if freshness:
        figures |= {"writes": freshness.writes, "limited": freshness.limited}
    written = " ".join(f"{name}={value}" for name, value in figures.items() if value != "")
    log.info("Turn %s ended: %s", turn.id, written, extra={"figures": figures})
