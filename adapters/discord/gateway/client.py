"""Passes the gateway's events to the intake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

import aiohttp
import discord

from adapters.discord.gateway import events
from adapters.discord.gateway.calls import ways
from adapters.discord.gateway.catch_up import CatchUp
from adapters.discord.gateway.commands import HELP
from adapters.discord.gateway.connection import Joined, Left, Listed, SessionBegan
from adapters.discord.gateway.events import MessageFilter
from adapters.discord.gateway.inbox import Admission, Deletion, Inbox, InboxItem, PendingEvent, Work
from adapters.discord.gateway.interactions import Interactions
from adapters.discord.gateway.servers import OwnServers
from adapters.discord.gateway.shard import Shard
from adapters.discord.rest import RestClient, limit_requests, own_id, translated
from bot.cache import BoundedCache
from bot.commands.handlers import Call, CommandHandlers, HelpContext
from bot.concurrency import BackgroundTasks, running
from bot.domain import ThreadKey, Turn
from bot.errors import NothingAsked, Refused, StoreUnavailable, SurfaceError
from bot.intake.intake import Admitted, Commanded, Intake, Received
from bot.languages import known, say, speak
from bot.reply.edit_budget import EditBudgets

_log = logging.getLogger(__name__)

# If Discord sends only messages that mention the bot.
_HELP_UNREAD = (
    "I cannot read a message that only replies to me or mentions my role. "
    "Mention me, {name}, and write your question after it."
)
_HELP_MENTIONS = (
    "Ask me something: write your question after my name. I cannot read messages here that do not "
    "mention me, {name}."
)
_NOTICES = 100  # notices to people that are in flight at once; further ones are dropped


class Gateway(discord.Client):
    """A client of the gateway for one shard.

    Messages, their edits and their deletions go through the inbox, in order. Interactions do not
    wait there, because they must be answered within three seconds. Unhandled events are sent again
    to the next process. `on_server` is called with the id and the name of each server of the bot,
    and `on_waiting` with turns that no worker takes soon; both handle their own errors.
    """

    def __init__(
        self,
        rest: RestClient,
        intake: Intake,
        *,
        inbox: Inbox,
        shard: Shard,
        servers: OwnServers,
        on_server: Callable[[str, str], Awaitable[None]],
        budgets: EditBudgets,
        on_waiting: Callable[[Turn], Awaitable[None]],
        intents: discord.Intents,
    ) -> None:
        super().__init__(
            intents=intents,
            shard_id=shard.number,
            shard_count=shard.count,
            http_trace=limit_requests(aiohttp.TraceConfig(), budgets),
            allowed_mentions=discord.AllowedMentions.none(),
            member_cache_flags=discord.MemberCacheFlags.none(),
            max_messages=None,
        )
        self._intake = intake
        self._inbox = inbox
        self._on_server = on_server
        self._shard = shard
        self._servers = servers
        self._on_waiting = on_waiting
        self._threads, self._tuning = rest.own.threads, rest.tuning
        self._filter = MessageFilter(self, remembered=rest.tuning.remembered)
        self._tasks = BackgroundTasks()
        self._interactions = Interactions(
            rest, intake, tasks=self._tasks, on_asked=self._show_if_waiting
        )
        self._notices = asyncio.Semaphore(_NOTICES)
        # Of people who have used a command or a button here: messages do not tell it.
        self._languages: BoundedCache[int, str] = BoundedCache()

    async def serve(self, token: str) -> None:
        """Log in and handle events until the connection ends and cannot be resumed."""
        # The inbox starts the tasks and they use the client, so they end between the two.
        try:
            async with self._tasks, running(self._inbox.work()):
                await self.login(token)
                await self._shard.serve(self, on_event=self._on_event)
        finally:
            await self.close()

    def _on_event(self, parsed: object, pending: PendingEvent) -> None:
        """Handle a parsed event. Errors are logged, so that they do not close the connection."""
        try:
            match parsed:
                case SessionBegan():
                    # Before any later question.
                    self._inbox.add(InboxItem(partial(self._catch_up, pending), pending.hold()))
                case discord.Message():
                    if isinstance(parsed.channel, discord.DMChannel):
                        self._shard.saved.note_dm(parsed.channel.id, parsed.id)
                    self._add(parsed, pending)
                # Pins, previews of links and new threads are updates, too.
                case discord.RawMessageUpdateEvent(message=message) if message.edited_at:
                    self._add(message, pending, edited_at=message.edited_at.timestamp())
                case discord.RawMessageDeleteEvent():
                    self._on_deletion({parsed.message_id}, parsed.channel_id, pending)
                case discord.RawBulkMessageDeleteEvent() if parsed.message_ids:
                    self._on_deletion(parsed.message_ids, parsed.channel_id, pending)
                case Listed(servers):
                    self._servers.note_list(servers)
                    keep = partial(self._servers.keep, servers)
                    self._inbox.add(InboxItem(keep, pending.hold()))
                    # Nothing is repeated for it: the next session's list tells the same.
                    self._tasks.start(self._servers.find_removed(servers, self._shard))
                case Joined(server, name):
                    if not self._servers.is_listed(server):
                        keep = partial(self._servers.keep, [server])
                        self._inbox.add(InboxItem(keep, pending.hold()))
                    self._start(partial(self._on_server, server, name), pending)
                case Left(server):
                    forget = partial(self._servers.forget, server)
                    self._inbox.add(InboxItem(forget, pending.hold()))
                case discord.Interaction():
                    self._languages.put(parsed.user.id, known(str(parsed.locale)))
                    self._start(partial(self._interactions.answer, parsed), pending)
        except Exception:
            _log.exception("Shard %s: cannot handle event %d", self._shard.number, pending.seq)

    def _add(
        self, message: discord.Message, pending: PendingEvent, *, edited_at: float = 0.0
    ) -> None:
        if admission := self._admission(message, pending, edited_at=edited_at):
            self._inbox.add(admission)
        else:
            channel = message.channel.id
            _log.debug("Ignored message %d in channel %d: not for the bot", message.id, channel)

    def _admission(
        self, message: discord.Message, pending: PendingEvent, *, edited_at: float = 0.0
    ) -> Admission | None:
        relevance = self._filter.relevance(message, edited=edited_at > 0)
        if relevance is None:
            return None
        return Admission(
            partial(self._receive, message, pending, edited_at),
            pending.hold(),
            turn_id=events.turn_id(message.id),
            channel=message.channel.id,
            asker=message.author.id,
            lookup=partial(self._filter.look_up, message) if relevance.needs_lookup else None,
            needs_store_check=relevance.needs_store_check,
        )

    def _on_deletion(self, message_ids: set[int], channel_id: int, pending: PendingEvent) -> None:
        self._inbox.add(
            Deletion(
                partial(self._forget, message_ids),
                pending.hold(),
                turn_ids=[events.turn_id(one) for one in sorted(message_ids)],
                # A thread that was opened from a message has the message's id.
                channels={channel_id, *message_ids},
            )
        )

    async def _forget(self, message_ids: Collection[int]) -> None:
        # Deletions name no author: the message may be a question or part of an answer.
        deleted = sorted(message_ids)
        await self._intake.changes.forget(
            *[events.turn_id(one) for one in deleted],
            asked_at=discord.utils.snowflake_time(deleted[-1]).timestamp(),
            platform=events.NAME,
            messages=[str(one) for one in deleted],
        )

    async def _catch_up(self, pending: PendingEvent) -> None:
        shard = self._shard
        # The next client or session begins its own catch-up.
        if self.is_closed() or not await shard.wait_until_connected(pending):
            return
        last_handled = await shard.last_handled()
        catch_up = CatchUp(
            self,
            last_handled=last_handled,
            began_at=shard.began_at,
            # Only shard 0 receives DMs (Discord's documentation, "Sharding").
            dms=[] if shard.number else await shard.saved.dms(),
            servers=shard.servers,
            wanted=lambda message: self._filter.relevance(message) is not None,
            tuning=self._tuning,
        )
        # Later questions wait for the first pass only.
        is_passed = asyncio.Event()
        self._start(partial(self._put_found, catch_up, pending, is_passed), pending)
        await is_passed.wait()

    async def _put_found(
        self, catch_up: CatchUp, pending: PendingEvent, is_passed: asyncio.Event
    ) -> None:
        try:
            # Runs in one task, so that cancelling it ends the requests.
            async with aclosing(catch_up.messages()) as found:
                async for messages in found:
                    admissions = [self._admission(one, pending) for one in messages]
                    self._inbox.put_first(filter(None, admissions))
                    is_passed.set()
        finally:
            is_passed.set()

    async def _receive(
        self, message: discord.Message, pending: PendingEvent, edited_at: float
    ) -> None:
        channel = await self._filter.look_up(message)
        if channel is None:
            return
        guild = getattr(channel, "guild", None)
        server = str(guild.preferred_locale) if guild else ""
        speak(self._languages.get(message.author.id), server)
        received = await self._to_received(message, channel, edited_at)
        match await self._intake.receive(received):
            case Admitted(turn):
                self._show_if_waiting(turn)
            case Commanded():
                await self._help(received, message, pending)
            case Refused() as refused if not refused.repeated:
                asked_nothing = isinstance(refused, NothingAsked)
                text = self._hint(message) if asked_nothing else refused.apology
                self._start(partial(self._send_notice, message, text), pending)

    async def _to_received(
        self, message: discord.Message, channel: events.Channel, edited_at: float
    ) -> Received:
        continued_thread: ThreadKey | None = None
        quoted = events.replied_to(message)
        if quoted and quoted.author.id == own_id(self) and events.has_threads(channel):
            continued_thread = await self._intake.lookup.thread_of(events.NAME, str(quoted.id))
        turn = events.message_turn(
            message,
            channel,
            text=events.text_of(message, own_id(self), role_id=self._filter.role(message) or 0),
            continued_thread=continued_thread,
            threads=self._threads,
            user_id=own_id(self),
        )
        people, ours = set[str](), events.is_opened_by(self, channel)
        if isinstance(channel, discord.Thread):
            # The person who opens a thread is its first speaker.
            people = {turn.person.id} if ours else {turn.person.id, str(channel.owner_id)}
        return Received(
            turn=turn,
            facts=replace(self._filter.facts(message), edited=edited_at > 0),
            edited_at=edited_at,
            people=people,
            ours=ours,
            stops_in=str(channel.id),
            roles=partial(self._filter.roles, message),
        )

    async def _help(
        self, received: Received, message: discord.Message, pending: PendingEvent
    ) -> None:
        turn = received.turn
        here = HelpContext(
            ways=[*ways(own_id(self), place="dm" if turn.asker.direct else "server")]
        )
        call = Call(id=turn.id, thread=turn.key, person=turn.person, scopes={}, asker=turn.asker)
        text = await CommandHandlers(self._intake).help(call, here)
        self._start(partial(self._send_notice, message, text), pending)

    def _show_if_waiting(self, turn: Turn) -> None:
        self._tasks.start(self._show_waiting(turn))

    async def _show_waiting(self, turn: Turn) -> None:
        with suppress(StoreUnavailable):
            if await self._intake.still_waits(turn, after=self._tuning.sign_after):
                await self._on_waiting(turn)

    def _hint(self, message: discord.Message) -> str:
        if self.user is None or self.intents.message_content:
            return say(HELP)
        # Guess: for a mention of the role alone Discord sends no text without the Message Content
        # intent. The documentation speaks of mentions of the bot ("Message Content Intent").
        is_read = message.content or any(user.id == self.user.id for user in message.mentions)
        return say(_HELP_MENTIONS if is_read else _HELP_UNREAD, name=self.user.mention)

    async def _send_notice(self, message: discord.Message, text: str) -> None:
        if self._notices.locked():
            _log.info("Message %d gets no notice: too many are in flight", message.id)
            return
        async with self._notices, translated():
            # The question's id as nonce prevents duplicates by other processes.
            await message.reply(text, mention_author=False, nonce=message.id)

    def _start(self, work: Work, pending: PendingEvent) -> None:
        """Run work outside of the inbox; the event is handled unless the work is cancelled."""

        async def run() -> None:
            try:
                await work()
            except SurfaceError as error:
                _log.warning("Event %d: Discord rejected a response: %s", pending.seq, error)
            except Exception:
                _log.exception("Event %d: cannot handle it", pending.seq)
            release()

        release = pending.hold()
        self._tasks.start(run())
