"""A Discord on loopback: REST and gateway on one port, driven by a test that plays the people."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Self, Unpack

from aiohttp import web

from tests.emulators.clock import Clock
from tests.emulators.discord import spec
from tests.emulators.discord.cdn import Cdn, Upload
from tests.emulators.discord.commands import Commands
from tests.emulators.discord.components import completed
from tests.emulators.discord.edge import API, VIA, Edge
from tests.emulators.discord.forms import Form
from tests.emulators.discord.frames import WRONG_TOKEN
from tests.emulators.discord.gateway import Event, Gateway, Greeting
from tests.emulators.discord.guild import guild
from tests.emulators.discord.limits import Limits, Meter
from tests.emulators.discord.message import STARTER, Message, Shown
from tests.emulators.discord.objects import Payload, User, now, snowflake
from tests.emulators.discord.rest import Rest
from tests.emulators.discord.routes import routes
from tests.emulators.discord.rules import GatewayRules
from tests.emulators.discord.sessions import Listener
from tests.emulators.discord.webhooks import AUTOCOMPLETION, Webhooks
from tests.emulators.discord.world import RIGHTS, World
from tests.emulators.faults import Fault, How, Terms
from tests.emulators.serving import judge, served
from tests.emulators.timeline import Moment

_REQUEST_BYTES = 25 * 1024**2  # docs: Uploading Files


class DiscordEmulator:
    """Stands in for Discord while it is entered; the unmodified discord.py takes it for the real.

    It holds one guild with one text channel. Leaving raises AssertionError when the bot called a
    method that is not emulated (`unknown`), when the bot, or the emulator itself, said what
    Discord's own OpenAPI document does not allow (`violations`), or when no call met a fault that
    was asked for. `pings` lists the mentions that
    the bot wrote without forbidding them, `unguarded` its texts that came without
    `allowed_mentions`. `limits` and `callback_seconds` can be changed at any time. What ends, by
    them or after `token_seconds`, ends by `clock`.
    """

    def __init__(
        self,
        *,
        message_content: bool = True,
        latency: float = 0.0,
        limits: Limits | None = None,
        token_seconds: float = 900.0,
        gateway: GatewayRules | None = None,
        clock: Clock | None = None,
        guild_locale: str = "en-US",
    ) -> None:
        self.clock = clock or Clock()
        self.token = f"emulated-{snowflake()}"
        self.unknown: list[str] = []
        self.violations: list[str] = []
        self._gateway = Gateway(
            token=self.token,
            url=lambda: self._address.replace("http", "ws"),
            greet=self._greet,
            message_content=message_content,
            rules=gateway or GatewayRules(),
            clock=self.clock,
            unknown=self.unknown,
            violations=self.violations,
        )
        self.cdn = Cdn(self.clock, lambda: self._address, self.violations)
        self._world = World(self._publish, self.clock, self.cdn, guild_locale=guild_locale)
        commands = Commands(self._world)
        self.limits = limits or Limits()
        self.callback_seconds = 3.0
        self.latency = latency
        meter = Meter(self.limits, self.clock)
        rest = Rest(
            self._world,
            meter,
            message_content=message_content,
            gateway_url=lambda: self.gateway_url,
            gateway_info=self._gateway.info,
        )
        webhooks = Webhooks(self._world, lambda: self.callback_seconds, token_seconds)
        self._edge = Edge(
            routes=routes(rest, webhooks),
            token=self.token,
            meter=meter,
            latency=lambda: self.latency,
            unknown=self.unknown,
            violations=self.violations,
        )
        self._stack = AsyncExitStack()
        self._address = ""
        self.bot_id = self._world.bot.id
        self.bot_mention = f"<@{self.bot_id}>"
        self.application_id = self._world.application_id
        self.guild_id = self._world.guild_id
        self.channel_id = self._world.add_channel("general")
        self.connected = self._gateway.connected
        self.handshakes = self._gateway.handshakes
        self.requests = self._edge.calls
        self.typing = self._world.typing
        self.commands = self._world.commands
        self.server_commands = self._world.server_commands
        self.pings = self._world.pings
        self.unguarded = self._world.unguarded
        # Who and what is there.
        self.user, self.role = self._world.add_user, self._world.add_role
        self.channel, self.elsewhere = self._world.add_channel, self._world.add_foreign
        self.dm = self._world.dm_with
        # What people do; each is told of where it is defined.
        self.slash, self.complete = commands.use, commands.complete
        self.choose, self.submit = commands.choose, commands.submit
        # What goes wrong.
        self.disconnect, self.cut = self._gateway.disconnect, self._gateway.cut
        self.invalidate, self.heal = self._gateway.invalidate, self._edge.faults.heal
        # Tells of each call once its work is done, before its answer goes out.
        self.watch = self._edge.watchers.append

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_REQUEST_BYTES)
        self._gateway.mount(app)
        app.router.add_route("*", API + "/{path:.*}", self._edge.serve)
        for folder in ("attachments", "ephemeral-attachments"):
            app.router.add_get(f"/{folder}/{{channel}}/{{id}}/{{name}}", self.cdn.serve)
        self._address = await self._stack.enter_async_context(served(app, seconds=1.0))
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._edge.closing.set()
        await self._gateway.disconnect(1001)
        await self._stack.aclose()
        if kind is None:
            judge(unknown=self.unknown, violations=self.violations, faults=self._edge.faults)

    @property
    def api_url(self) -> str:
        """The base of the REST API, with its version."""
        return self._address + API

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens."""
        return self._gateway.url

    @property
    def sessions(self) -> int:
        """How many IDENTIFYs with the right token there were."""
        return self._gateway.identified

    @property
    def resumes(self) -> int:
        """How many sessions went on with another connection."""
        return self._gateway.resumed

    @property
    def listeners(self) -> list[Listener]:
        """The sessions that the bot began, oldest first, as they stand now."""
        return self._gateway.listeners()

    async def reset_token(self) -> None:
        """Give the bot another token, as its owner may; the old one is refused from now on.

        Its connections are closed with 4004 (Red-DiscordBot, issue 4065).
        """
        self.token = self._gateway.token = self._edge.token = f"emulated-{snowflake()}"
        await self._gateway.disconnect(WRONG_TOKEN)

    def let_bot(self, *, permissions: int | None = None, leave: bool = False) -> None:
        """Let everybody in the guild have these permissions, the bot too, or let the bot leave."""
        if permissions is not None:
            self._world.permissions = str(permissions)
        self._world.has_left = leave

    def allow(self, user_id: str, manages: str) -> None:
        """Let a person manage the "channel" or the "server" from now on, or neither."""
        self._user(user_id).extra = RIGHTS[manages]

    def give_role(self, user_id: str, role_id: str) -> None:
        """Give a person a role from now on."""
        self._user(user_id).roles.append(role_id)

    async def say(
        self,
        channel_id: str,
        user_id: str,
        text: str,
        *,
        reply_to: str | None = None,
        files: tuple[Upload, ...] = (),
        nonce: str | None = None,
    ) -> str:
        """Write as this person, with these files; return the message's id.

        A reply pings whom it answers, as Discord's clients do.
        """
        form = Form(text=text, reply_to=reply_to, files=files, nonce=nonce)
        channel = self._world.channel(channel_id)
        return self._world.post(channel, self._user(user_id), form).id

    async def forward(self, channel_id: str, user_id: str, message_id: str) -> str:
        """Forward a message into a channel, as this person; return the new message's id."""
        channel = self._world.channel(channel_id)
        original = self._message(message_id)
        return self._world.forward(channel, self._user(user_id), original).id

    def decorate(
        self, message_id: str, *, text: str, embeds: list[Payload], components: list[Payload]
    ) -> None:
        """Let a message show this, as its bot would have."""
        message = self._message(message_id)
        message.text, message.components = text, completed(components)
        message.embeds = [{"type": "rich"} | one for one in embeds]

    async def edit(self, message_id: str, text: str, *, tells: bool = True) -> None:
        """Change a person's message, as the person; `tells` the bot of it."""
        self._world.edit(self._message(message_id), Form(text=text), tells=tells)

    async def delete(self, message_id: str) -> None:
        """Delete a message, as a person."""
        self._world.delete(self._message(message_id))

    async def sweep(self, *message_ids: str) -> None:
        """Delete messages of one channel at once, as a moderator's bot does."""
        self._world.delete(*(self._message(one) for one in message_ids))

    async def open_thread(self, message_id: str, user_id: str, name: str) -> str:
        """Open a thread from a message as this person, or this other bot; return its id."""
        message = self._message(message_id)
        return self._world.open_thread(message, self._user(user_id), name).id

    async def archive(self, thread_id: str, *, locked: bool = False) -> None:
        """Archive a thread as a moderator; a locked one only moderators open again."""
        self._world.archive(self._world.channel(thread_id), archived=True, locked=locked)

    def forbid_writing(self, channel_id: str, *, in_threads: bool) -> None:
        """Let the bot send no more messages in this channel, or in its threads."""
        self._world.closed.add((channel_id, in_threads))

    def hide_history(self, channel_id: str) -> None:
        """Take the permission Read Message History there from people; READY tells of it."""
        self._world.channel(channel_id).hides_history = True

    async def redeliver(self, message_id: str) -> None:
        """Tell the bot once more of this message; the id of an interaction does as well."""
        interaction = self._world.interactions.get(message_id)
        self._world.tell_again(interaction or self._message(message_id))

    async def tell(self, name: str, data: Payload) -> None:
        """Send an event that has no verb here, as it is, to every session of its shard."""
        self._gateway.publish(Event(name, data))

    def greet(self, **odd: object) -> None:
        """Change what READY tells of sessions that begin from now on."""
        self._gateway.odd_greeting = odd

    async def remove_bot(self) -> None:
        """Remove the bot from the guild, and tell it (docs: Guild Delete)."""
        self._world.has_left = True
        await self.tell("GUILD_DELETE", {"id": self.guild_id})

    async def add_bot(self) -> None:
        """Add the bot to the guild that it has left, and tell it."""
        self._world.has_left, self._world.joined_at = False, now()
        await self.tell("GUILD_CREATE", self.guild())

    def guild(self) -> Payload:
        """Return what GUILD_CREATE says of the guild, to be changed and told."""
        return guild(self._world)

    def event_of(self, message_id: str) -> Payload:
        """Return what MESSAGE_CREATE says of this message, to be changed and told."""
        return self._message(message_id).event()

    def modal(self, interaction_id: str) -> Payload | None:
        """Return the form that an interaction has opened and nobody has sent."""
        return self._world.interactions[interaction_id].modal

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

    async def interact(
        self, channel_id: str, user_id: str, kind: int, data: object, /, **odd: object
    ) -> str:
        """Do as this person what has no verb here; return the interaction's id.

        `kind` is Discord's number; `odd` changes what is told, where None leaves a key out. But for
        an autocompletion the answer is taken as one to a command.
        """
        channel = self._world.channel(channel_id)
        answered_as = kind if kind == AUTOCOMPLETION else 2
        interaction = self._world.begin(answered_as, self._user(user_id), channel, {})
        told = interaction.payload() | {"type": kind, "data": data} | odd
        await self.tell("INTERACTION_CREATE", {k: v for k, v in told.items() if v is not None})
        return interaction.id

    def token_of(self, interaction_id: str) -> str:
        """Return the token by which the bot answers an interaction."""
        return self._world.interactions[interaction_id].token

    def choices(self, interaction_id: str) -> list[object] | None:
        """Return what an autocompletion offers; None while it was not answered."""
        return self._world.interactions[interaction_id].choices

    def thread_of(self, message_id: str) -> str | None:
        """Return the id of the thread that was opened from this message, if there is one."""
        thread = self._message(message_id).thread
        return thread.id if thread else None

    def screen(self, channel_id: str) -> list[Shown]:
        """Return what stands in a channel, a thread or a DM now, oldest first.

        Of a thread, what was written there: not the message from which it was opened.
        """
        channel = self._world.channels[channel_id]
        here = [one for one in self._world.standing(channel) if not one.deleted]
        return [one.shown() for one in here if one.kind != STARTER]

    def file_ids(self, message_id: str) -> list[str]:
        """Return the ids of a message's files."""
        return [str(one["id"]) for one in self._message(message_id).attachments]

    def states(self, message_id: str) -> list[str]:
        """Return every text that the message has shown, in order."""
        return list(self._message(message_id).states)

    def original(self, interaction_id: str) -> Shown | None:
        """Return the interaction's answer; "thinking" has an empty text, none at all is None."""
        message = self._world.interactions[interaction_id].original
        return message.shown() if message and not message.deleted else None

    def timeline(self, channel_id: str) -> list[Moment]:
        """Return what happened on the screen of a channel, a thread or a DM, oldest first.

        Typing is a "sign" without a text, and "thinking" a message without one.
        """
        return list(self._world.moments[channel_id])

    def fail(
        self, call: str, how: How = "status", *, via: bool = True, **terms: Unpack[Terms]
    ) -> Fault:
        """Let calls such as "PATCH /channels/1/messages/2" go wrong, as Faults says.

        Without `via` the answer has no Via header, as if it came from Cloudflare.
        """
        terms["headers"] = {**(VIA if via else {}), **(terms.get("headers") or {})}
        return self._edge.faults.add(call, how, **terms)

    def refuse_connections(self) -> None:
        """Let nobody connect to the gateway; who is connected stays so."""
        self._gateway.refusing = True

    def accept_connections(self) -> None:
        """Let everybody connect to the gateway again."""
        self._gateway.refusing = False

    def _greet(self) -> Greeting:
        world = self._world
        seen = guild(world)
        self.violations += spec.event_problems("GUILD_CREATE", seen)
        application: Payload = {"id": world.application_id, "flags": 0}
        guilds = [] if world.has_left else [seen]
        return Greeting(user=world.bot.payload(), application=application, guilds=guilds)

    def _publish(self, event: Event) -> None:
        for data in (event.data, event.veiled):
            self.violations += spec.event_problems(event.name, data) if data else []
        self._gateway.publish(event)

    def _user(self, user_id: str) -> User:
        return self._world.users[user_id]

    def _message(self, message_id: str) -> Message:
        return self._world.messages[message_id]
