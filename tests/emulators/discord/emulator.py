"""A Discord on loopback: REST and gateway on one port, driven by a test that plays the people."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.emulators.discord.edge import API, Edge, Fault
from tests.emulators.discord.forms import Form
from tests.emulators.discord.gateway import GUILDS, Event, Gateway
from tests.emulators.discord.objects import Message, Payload, Shown, User, snowflake
from tests.emulators.discord.rest import Rest
from tests.emulators.discord.world import World

_COMMAND_WAIT = 5.0  # seconds that a person waits for a command to appear


class DiscordEmulator:
    """Stands in for Discord while it is entered; the unmodified discord.py takes it for the real.

    It holds one guild with one text channel. `bucket` is how many creates, or edits, a channel
    takes in how many seconds, and likewise each interaction. Leaving raises AssertionError when
    the bot called a method that is not emulated (`unknown`) or sent a body that Discord's own
    OpenAPI document does not allow (`violations`). `pings` lists the mentions that the bot wrote
    without forbidding them, `unguarded` its texts that came without `allowed_mentions`.
    """

    def __init__(
        self,
        *,
        message_content: bool = True,
        latency: float = 0.0,
        bucket: tuple[int, float] = (5, 5.0),
        callback_seconds: float = 3.0,
        token_seconds: float = 900.0,
    ) -> None:
        self.token = f"emulated-{snowflake()}"
        self.unknown: list[str] = []
        self.violations: list[str] = []
        self._gateway = Gateway(
            token=self.token,
            greet=self._greet,
            message_content=message_content,
            unknown=self.unknown,
        )
        self._world = World(self._gateway.publish)
        rest = Rest(
            self._world,
            message_content=message_content,
            callback_seconds=callback_seconds,
            token_seconds=token_seconds,
            gateway_url=lambda: self.gateway_url,
        )
        self._edge = Edge(rest, self.token, bucket, latency, self.unknown, self.violations)
        self._stack = AsyncExitStack()
        self._port = 0
        self.bot_id = self._world.bot.id
        self.bot_mention = f"<@{self.bot_id}>"
        self.application_id = self._world.application_id
        self.guild_id = self._world.guild_id
        self.channel_id = self._world.add_channel("general").id
        self.connected = self._gateway.connected
        self.requests = self._edge.calls
        self.typing = self._world.typing
        self.commands = self._world.commands
        self.pings = self._world.pings
        self.unguarded = self._world.unguarded

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/gateway", self._gateway.serve)
        app.router.add_route("*", API + "/{path:.*}", self._edge.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._edge.closing.set()
        await self._gateway.disconnect(1001)
        await self._stack.aclose()
        if error is None:
            assert not self.unknown, f"the bot called what is not emulated: {self.unknown}"
            assert not self.violations, f"Discord would refuse: {self.violations}"

    @property
    def api_url(self) -> str:
        """The base of the REST API, with its version."""
        return f"http://127.0.0.1:{self._port}{API}"

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens."""
        return f"ws://127.0.0.1:{self._port}/gateway"

    @property
    def sessions(self) -> int:
        """How many IDENTIFYs there were."""
        return self._gateway.identified

    def user(self, name: str, *, bot: bool = False) -> str:
        """Let a new person (or another bot) join the guild; return the id."""
        return self._world.add_user(name, bot=bot).id

    def channel(self, name: str) -> str:
        """Make another text channel in the guild; return its id."""
        return self._world.add_channel(name).id

    def dm(self, user_id: str) -> str:
        """Return the id of the DM channel of this person and the bot."""
        return self._world.dm_with(user_id).id

    async def say(
        self, channel_id: str, user_id: str, text: str, *, reply_to: str | None = None
    ) -> str:
        """Write as this person; a reply pings whom it answers, as Discord's clients do."""
        form = Form(text=text, reply_to=reply_to)
        channel = self._world.channel(channel_id)
        return self._world.post(channel, self._user(user_id), form).id

    async def edit(self, message_id: str, text: str) -> None:
        """Change a person's message, as the person."""
        self._world.edit(self._message(message_id), Form(text=text))

    async def delete(self, message_id: str) -> None:
        """Delete a message, as a person."""
        self._world.delete(self._message(message_id))

    async def archive(self, thread_id: str, *, locked: bool = False) -> None:
        """Archive a thread as a moderator; a locked one only moderators open again."""
        self._world.archive(self._world.channel(thread_id), archived=True, locked=locked)

    def forbid_writing(self, channel_id: str, *, in_threads: bool) -> None:
        """Let the bot send no more messages in this channel, or in its threads."""
        self._world.closed.add((channel_id, in_threads))

    async def redeliver(self, message_id: str) -> None:
        """Tell the bot once more of this message; the id of an interaction does as well."""
        interaction = self._world.interactions.get(message_id)
        self._world.tell_again(interaction or self._message(message_id))

    async def tell(self, name: str, data: Payload) -> None:
        """Send an event that has no verb here, as it is, to every session."""
        self._gateway.publish(Event(name, data))

    def event_of(self, message_id: str) -> Payload:
        """Return what MESSAGE_CREATE says of this message, to be changed and told."""
        return self._message(message_id).event()

    async def slash(self, channel_id: str, user_id: str, name: str, **options: str) -> str:
        """Use a command as this person, as soon as it is registered; return the interaction's id.

        AssertionError when it is not registered in 5 seconds, or has no such options.
        """
        command = await self._registered(name)
        takes = command.get("options")
        known = [str(one["name"]) for one in takes] if isinstance(takes, list) else []
        assert set(options) <= set(known), f"/{name} takes only {known}"
        filled = [{"name": one, "type": 3, "value": text} for one, text in options.items()]
        data: Payload = {"id": command["id"], "name": name, "type": 1, "options": filled}
        channel = self._world.channel(channel_id)
        return self._world.interact(2, self._user(user_id), channel, data).id

    async def click(self, message_id: str, user_id: str, custom_id: str) -> str:
        """Press a button as this person; return the interaction's id.

        AssertionError when the message does not show such a button.
        """
        message = self._message(message_id)
        buttons = message.shown().buttons
        assert custom_id in buttons, f"the message shows only the buttons {buttons}"
        data: Payload = {"custom_id": custom_id, "component_type": 2}
        user = self._user(user_id)
        return self._world.interact(3, user, message.channel, data, message=message).id

    def thread_of(self, message_id: str) -> str | None:
        """Return the id of the thread that was opened from this message."""
        thread = self._message(message_id).thread
        return thread.id if thread else None

    def screen(self, channel_id: str) -> list[Shown]:
        """Return what stands in a channel, a thread or a DM now, oldest first."""
        channel = self._world.channel(channel_id)
        messages = self._world.messages.values()
        return [one.shown() for one in messages if one.channel is channel and not one.deleted]

    def states(self, message_id: str) -> list[str]:
        """Return every text that the message has shown, in order."""
        return list(self._message(message_id).states)

    def original(self, interaction_id: str) -> Shown | None:
        """Return the interaction's answer; "thinking" has an empty text, none at all is None."""
        message = self._world.interactions[interaction_id].original
        return message.shown() if message and not message.deleted else None

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int | None = 500,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        hang: bool = False,
        applied: bool = False,
        times: int = 1,
        after: int = 0,
    ) -> None:
        """Let the next `times` matching calls go wrong, after `after` of them went well.

        `path` is a regular expression to be found in the path behind the API's version. A status of
        None closes the connection, `hang` never answers, `applied` does the work first. A 429
        carries the `Via` header unless `headers` are given.
        """
        if headers is None:
            headers = {"Via": "1.1 discord-emulator"} if status == 429 else {}
        pattern = re.compile(path)
        fault = Fault(method, pattern, status, body, headers, hang, applied, times, after)
        self._edge.faults.append(fault)

    async def disconnect(self, code: int = 4000) -> None:
        """Close the gateway's sockets; with the default code a bot can resume."""
        await self._gateway.disconnect(code)

    def _greet(self, session_id: str) -> list[Event]:
        world = self._world
        ready: Payload = {
            "v": 10,
            "user": world.bot.payload(),
            "guilds": [{"id": world.guild_id, "unavailable": True}],
            "session_id": session_id,
            "resume_gateway_url": self.gateway_url,
            "application": {"id": world.application_id, "flags": 0},
        }
        return [Event("READY", ready), Event("GUILD_CREATE", world.guild(), intents=GUILDS)]

    def _user(self, user_id: str) -> User:
        return self._world.users[user_id]

    def _message(self, message_id: str) -> Message:
        return self._world.messages[message_id]

    async def _registered(self, name: str) -> Payload:
        try:
            async with asyncio.timeout(_COMMAND_WAIT):
                while True:
                    for command in self.commands:
                        if command["name"] == name:
                            return command
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"the bot registered no /{name}") from None
