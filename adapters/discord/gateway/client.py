"""The gateway's events, handed to the intake."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial

import aiohttp
import discord
from discord import app_commands

from adapters.discord.errors import translated
from adapters.discord.gateway import events
from adapters.discord.gateway.catch_up import Search
from adapters.discord.gateway.connection import fetch_channel
from adapters.discord.gateway.inbox import Backlog
from adapters.discord.gateway.progress import held
from adapters.discord.gateway.roles import OwnRoles
from adapters.discord.gateway.shard import Shard
from adapters.discord.rate_limits import Budgets, counted
from adapters.discord.reply.channel import REGENERATE, REGENERATE_LABEL, STOP
from bot.concurrency import cancelled
from bot.domain import ThreadKey
from bot.errors import HasEnded, NothingAsked, Refused, StoreUnavailable, SurfaceError
from bot.turns.intake import Intake

_log = logging.getLogger(__name__)

_Refusal = Refused | StoreUnavailable

_HELP = "Ask me something: write your question after my name."
_HELP_UNREAD = (
    "I cannot read a message that mentions only my role. "
    "Mention me, {name}, and write your question after it."
)
_DECLINED = (
    "I do not know this command or button, perhaps it is from another version of me. "
    "Mention me with your question instead, or use /ask."
)
_INTAKE_TIMEOUT = 2.0  # seconds, of the three that Discord waits for an answer
_CLOSE_TIMEOUT = 5.0  # seconds; discord.py 2.7.1 would wait 30 for the other side
_LOOK_AGAIN = 2.0  # seconds between two passes for what was missed
_TELLING = 100  # words to people that are on their way at once; further ones are dropped
_LOOKED_UP = 10_000  # channels that are remembered where the gateway has not shown them


class Gateway(discord.Client):
    """A client of the gateway, for one shard, with the intents that it is given.

    Messages and their deletions go through the backlog, in order; what must be answered within
    three seconds does not wait there. What nobody has dealt with when the process ends is told
    again to the next one.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        backlog: Backlog,
        shard: Shard,
        budgets: Budgets,
        threads: bool,
        intents: discord.Intents,
    ) -> None:
        super().__init__(
            intents=intents,
            shard_id=shard.number,
            shard_count=shard.count,
            http_trace=counted(aiohttp.TraceConfig(), budgets),
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),
            max_messages=None,
        )
        self._intake = intake
        self._backlog = backlog
        self._shard = shard
        self._threads = threads
        self._reads_everything = intents.message_content
        self._looked_up: OrderedDict[int, events.Channel] = OrderedDict()
        self._roles = OwnRoles(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._telling = asyncio.Semaphore(_TELLING)

    async def serve(self, token: str, *, registers: bool) -> None:
        """Log in, register /ask if asked to, and hand over events until it ends for good."""
        working = asyncio.create_task(self._backlog.work())
        try:
            await self.login(token)
            if registers:
                self._start(self._register())
            await self._shard.attend(self, ready=self._on_session)
        finally:
            # First of all, for they ask Discord through this client.
            await cancelled(working, *self._tasks)
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self.close()
            await self.http.close()

    async def on_message(self, message: discord.Message) -> None:
        """Queue what may be for us."""
        if isinstance(message.channel, discord.DMChannel):
            self._shard.note_dm(message.channel.id, message.id)
        channel = self._looked_up.get(message.channel.id, message.channel)
        if self._is_question(message):
            unknown = isinstance(channel, discord.PartialMessageable)
            unknown |= self._roles.is_mentioned(message) is None
            self._backlog.add_question(
                events.turn_id(message.id),
                partial(self._take, message),
                place=channel.id,
                asker=message.author.id,
                look=partial(self._look_up, message) if unknown else None,
                done=held(),
            )

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        """Queue the end of a turn whose question was deleted."""
        self._forget({event.message_id}, event.channel_id)

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        """Queue the end of every turn whose question a moderator swept away."""
        self._forget(event.message_ids, event.channel_id)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Answer a command or a button of any process, and decline what no version shows now."""
        match interaction.type.name, interaction.data:
            case "application_command", {"name": "ask", "options": [{"value": str(prompt)}]} if (
                interaction.channel_id
            ):
                self._start(self._ask(interaction, prompt.strip()))
            case "component", {"custom_id": str(name)} if name.startswith(STOP):
                self._start(self._stop(interaction, name.removeprefix(STOP)))
            case "component", {"custom_id": str(name)} if name.startswith(REGENERATE):
                again = self._intake.regenerate(
                    name.removeprefix(REGENERATE),
                    person_id=str(interaction.user.id),
                    press_id=events.turn_id(interaction.id),
                    place=events.press_place(interaction),
                )
                self._start(self._pressed(interaction, again))
            case _:
                self._start(_decline(interaction))

    def _forget(self, message_ids: set[int], channel_id: int) -> None:
        if not message_ids:
            return
        turn_ids = [events.turn_id(one) for one in sorted(message_ids)]
        asked_at = discord.utils.snowflake_time(max(message_ids)).timestamp()
        self._backlog.add_deletion(
            turn_ids,
            partial(self._intake.forget, *turn_ids, asked_at=asked_at),
            # A thread that was opened from a message has its id.
            places={channel_id, *message_ids},
            done=held(),
        )

    def _on_session(self) -> None:
        """Look for what was missed before anything that is said from now on."""
        # Nothing is saved of a session before all that was missed is admitted.
        self._backlog.add(partial(self._catch_up, copy_context()), done=held())

    async def _catch_up(self, event: Context) -> None:
        if self.is_closed():
            return  # the next client looks for itself
        shard = self._shard
        heard = await shard.heard()
        dms = await shard.saved.dms() if shard.saved and shard.hears_dms else []
        search = Search(self, heard=heard, begun=shard.begun, dms=dms, wanted=self._is_question)
        await self._look(search, event)
        if not search.is_over:
            # What is said from now on waits for one pass only.
            event.run(self._start, self._look_on(search, event))

    async def _look_on(self, search: Search, event: Context) -> None:
        while not search.is_over:
            await asyncio.sleep(_LOOK_AGAIN)
            await self._look(search, event)

    async def _look(self, search: Search, event: Context) -> None:
        found = [
            (
                events.turn_id(message.id),
                partial(self._take, message),
                message.channel.id,
                message.author.id,
                event.run(held),
            )
            for message in await search.look()
        ]
        self._backlog.put_first(found)

    @property
    def _id(self) -> int:
        # There is an application from the login on, and its bot's id is in `user`.
        if self.user is None:
            raise RuntimeError("events come after the login")
        return self.user.id

    def _start(self, work: Awaitable[None]) -> None:
        release = held()

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                release()

        task = asyncio.create_task(_guarded(work))
        self._tasks.add(task)
        task.add_done_callback(end)

    async def _register(self) -> None:
        tree = _Commands(self)

        @tree.command(name="ask", description="Ask me something")
        @app_commands.describe(prompt="Your question")
        @app_commands.allowed_contexts(guilds=True, dms=True)
        async def ask(_: discord.Interaction, prompt: str) -> None:
            """Be described to Discord; `on_interaction` answers it."""

        async with translated():
            await tree.sync()

    def _is_question(self, message: discord.Message) -> bool:
        channel = self._looked_up.get(message.channel.id, message.channel)
        return events.is_by_a_person(message) and self._may_be_for_us(message, channel)

    def _may_be_for_us(
        self, message: discord.Message, channel: discord.abc.MessageableChannel
    ) -> bool:
        if isinstance(channel, discord.DMChannel) or self._calls_us(message) is not False:
            return True
        if isinstance(channel, discord.Thread):
            return self._reads_everything and channel.owner_id == self._id
        if isinstance(channel, discord.PartialMessageable) and self._reads_everything:
            return True
        return events.answered_message(message, self._id) is not None

    def _calls_us(self, message: discord.Message) -> bool | None:
        """Whether a message mentions us or our role; None while the role is not known."""
        return events.mentions(message, self._id) or self._roles.is_mentioned(message)

    async def _take(self, message: discord.Message) -> None:
        await self._roles.look_up(message)
        channel = await self._channel(message)
        if channel is None or not self._may_be_for_us(message, channel):
            return
        goes_on = await self._goes_on(message, channel)
        called = self._calls_us(message)
        if events.has_threads(channel) and not called and goes_on is None:
            return
        text = events.text_of(message, self._id, role_id=self._roles.of(message))
        # Without the Message Content intent a reply that calls nobody is empty, too.
        if not text and not called and not isinstance(channel, discord.DMChannel):
            return
        turn = events.message_turn(
            message, channel, text=text, goes_on=goes_on, threads=self._threads
        )
        try:
            await self._intake.admit(turn)
        except Refused as refused:
            if not refused.repeated:
                asked_nothing = isinstance(refused, NothingAsked)
                words = self._help(message) if asked_nothing else refused.apology
                self._start(self._tell(message, words))

    def _help(self, message: discord.Message) -> str:
        # Guess: for a mention of the role alone Discord sends no text without the Message Content
        # intent. The documentation speaks of mentions of the bot ("Message Content Intent").
        if self.user and not message.content and self._roles.is_mentioned(message):
            return _HELP_UNREAD.format(name=self.user.mention)
        return _HELP

    async def _look_up(self, message: discord.Message) -> None:
        await self._roles.look_up(message)
        await self._channel(message)

    async def _channel(self, message: discord.Message) -> events.Channel | None:
        channel: object = self._looked_up.get(message.channel.id, message.channel)
        if isinstance(channel, discord.PartialMessageable):
            # A guild or a thread that the gateway has not shown us: a resumed session shows none.
            channel = await fetch_channel(self, channel.id)
            if isinstance(channel, events.Channel):
                self._remember(channel)
        return channel if isinstance(channel, events.Channel) else None

    def _remember(self, channel: events.Channel) -> None:
        # What we ask of a channel, its kind and its owner, never changes.
        self._looked_up[channel.id] = channel
        if len(self._looked_up) > _LOOKED_UP:
            self._looked_up.popitem(last=False)

    async def _goes_on(self, message: discord.Message, channel: events.Channel) -> ThreadKey | None:
        answered = events.answered_message(message, self._id)
        if answered is None or not events.has_threads(channel):
            return None
        return await self._intake.thread_of("discord", str(answered))

    async def _tell(self, message: discord.Message, text: str) -> None:
        if self._telling.locked():
            _log.info("Message %d gets no word: too many are on their way", message.id)
            return
        async with self._telling, translated():
            # With the question's id as nonce it is said once, whoever else heard the question.
            await message.reply(text, mention_author=False, nonce=message.id)

    async def _ask(self, interaction: discord.Interaction, prompt: str) -> None:
        refusal = None
        if prompt:
            refusal = await _refusal(self._intake.admit(events.command_turn(interaction, prompt)))
        async with translated():
            if not prompt:
                await interaction.response.send_message(_HELP, ephemeral=True)
            elif refusal:
                await interaction.response.send_message(refusal.apology, ephemeral=True)
            else:
                await interaction.response.defer(thinking=True)

    async def _stop(self, interaction: discord.Interaction, turn_id: str) -> None:
        refusal = await _refusal(self._end(turn_id))
        if isinstance(refusal, HasEnded) and await _offers_regenerate(interaction, turn_id):
            async with translated():
                await interaction.followup.send(refusal.apology, ephemeral=True)
        else:
            await _acknowledge(interaction, refusal)

    async def _end(self, turn_id: str) -> None:
        if not await self._intake.stop(turn_id):
            raise HasEnded

    async def _pressed(self, interaction: discord.Interaction, asked: Awaitable[object]) -> None:
        await _acknowledge(interaction, await _refusal(asked))


class _Commands(app_commands.CommandTree[Gateway]):
    """What Discord shows of our commands; the tree itself would leave others without an answer."""

    async def interaction_check(self, _: discord.Interaction) -> bool:
        """Leave every command to `on_interaction`."""
        return False


async def _decline(interaction: discord.Interaction) -> None:
    """Answer what this version does not know, which the person would else read as a failure."""
    _log.info("Interaction %d of type %s declined: not ours", interaction.id, interaction.type)
    async with translated():
        if interaction.type is discord.InteractionType.autocomplete:
            await interaction.response.autocomplete([])
        else:
            await interaction.response.send_message(_DECLINED, ephemeral=True)


async def _acknowledge(interaction: discord.Interaction, refusal: _Refusal | None) -> None:
    async with translated():
        if refusal is None:
            await interaction.response.defer()
        else:
            await interaction.response.send_message(refusal.apology, ephemeral=True)


async def _offers_regenerate(interaction: discord.Interaction, turn_id: str) -> bool:
    """Give a message that could not be edited at its end the button of one; False where it can not.

    The final edit, if it is only on its way, shows the same.
    """
    view = discord.ui.View(timeout=None)
    view.add_item(discord.ui.Button(label=REGENERATE_LABEL, custom_id=REGENERATE + turn_id))
    view.stop()  # the library need not wait for presses
    try:
        async with translated():
            await interaction.response.edit_message(view=view)
    except SurfaceError as error:
        _log.info("a message keeps its Stop: %s", error)
        return False
    return True


async def _refusal(asked: Awaitable[object]) -> _Refusal | None:
    try:
        async with asyncio.timeout(_INTAKE_TIMEOUT):
            await asked
    except TimeoutError:
        # It may be stored all the same: then the answer takes the apology's place.
        return StoreUnavailable("the store does not answer in time")
    except (Refused, StoreUnavailable) as error:
        return error
    return None


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except SurfaceError as error:
        _log.warning("Discord did not take an answer: %s", error)
    except Exception:
        _log.exception("an event from Discord was not handled")
