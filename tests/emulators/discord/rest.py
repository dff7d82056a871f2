"""Discord's REST methods as the emulator knows them, each a function of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.emulators.discord.definitions import check_command
from tests.emulators.discord.forms import Form
from tests.emulators.discord.guild import guild, guild_of_rest
from tests.emulators.discord.limits import Meter
from tests.emulators.discord.message import STARTER, SUPPRESS_EMBEDS, Message
from tests.emulators.discord.objects import PUBLIC_THREAD, Payload, snowflake
from tests.emulators.discord.request import Answer, Refusal, Request, bad_form, bad_length
from tests.emulators.discord.world import World

_MESSAGE_CONTENT_LIMITED = 1 << 19
_THREAD_NAME = 100
# docs: Application Object.
_UNSET = ("icon", "interactions_endpoint_url", "role_connections_verification_url", "team", "type")
_UNCOUNTED = (
    *("approximate_user_install_count", "approximate_user_authorization_count"),
    "explicit_content_filter",
)
_LISTED, _MOST_LISTED = 50, 100  # docs: Get Channel Messages


@dataclass(frozen=True, slots=True)
class Rest:
    """Answers requests, or raises Refusal."""

    world: World
    meter: Meter
    message_content: bool
    gateway_url: Callable[[], str]
    gateway_info: Callable[[], Payload]

    def me(self, _: Request) -> Answer:
        own: Payload = {"verified": True, "mfa_enabled": False, "locale": "en-US", "email": None}
        return 200, self.world.bot.payload() | own

    def application(self, _: Request) -> Answer:
        flags = _MESSAGE_CONTENT_LIMITED if self.message_content else 0
        return 200, dict.fromkeys(_UNSET) | dict.fromkeys(_UNCOUNTED, 0) | {
            "id": self.world.application_id,
            "name": "Parley",
            "description": "",
            "bot": self.world.bot.payload(),
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "owner": self.world.bot.payload(),
            "flags": flags,
            "flags_new": str(flags),
            "redirect_uris": [],
            "approximate_guild_count": 1,
            "eligible_oauth2_scopes": [],
        }

    def gateway_for_bot(self, _: Request) -> Answer:
        return 200, {"url": self.gateway_url()} | self.gateway_info()

    def channel(self, request: Request) -> Answer:
        return 200, self.world.open_channel(request.ids["channel_id"]).payload()

    def my_guilds(self, _: Request) -> Answer:
        """Return the guilds of the bot (docs: Get Current User Guilds)."""
        guild: Payload = {"id": self.world.guild_id, "name": "The workshop", "features": []}
        guild |= {"permissions": self.world.permissions, "owner": False}
        guild |= {"icon": None, "banner": None}
        return 200, [] if self.world.has_left else [guild]

    def guild(self, request: Request) -> Answer:
        self._check_guild(request)
        return 200, guild_of_rest(self.world)

    def channels(self, request: Request) -> Answer:
        self._check_guild(request)
        return 200, guild(self.world)["channels"]

    def open_dm(self, request: Request) -> Answer:
        """Return the DM with a person (docs: Create DM)."""
        person = str(request.body["recipient_id"])
        if person not in self.world.users:
            raise Refusal(400, 50035, "Invalid Form Body")
        return 200, self.world.channel(self.world.dm_with(person)).payload()

    def leave_guild(self, request: Request) -> Answer:
        """Let the bot leave (docs: Leave Guild)."""
        if request.ids["guild_id"] != self.world.guild_id or self.world.has_left:
            raise Refusal(404, 10004, "Unknown Guild")
        self.world.has_left = True
        return 204, None

    def member(self, request: Request) -> Answer:
        self._check_guild(request)
        user = self.world.users.get(request.ids["user_id"])
        if user is None:
            raise Refusal(404, 10007, "Unknown Member")
        return 200, user.member() | {"user": user.payload()}

    def _check_guild(self, request: Request) -> None:
        if request.ids["guild_id"] != self.world.guild_id or self.world.has_left:
            raise Refusal(404, 10004, "Unknown Guild")

    def modify_channel(self, request: Request) -> Answer:
        channel = self.world.open_channel(request.ids["channel_id"])
        if request.body != {"archived": False}:
            raise NotImplementedError(f"a channel cannot become {request.body}")
        if channel.kind != PUBLIC_THREAD:
            raise Refusal(400, 50024, "Cannot execute action on this channel type")
        self.world.unarchive(channel)
        return 200, channel.payload()

    def typing(self, request: Request) -> Answer:
        self.world.show_typing(self.world.open_channel(request.ids["channel_id"]))
        return 204, None

    def messages(self, request: Request) -> Answer:
        channel = self.world.open_channel(request.ids["channel_id"])
        before, after = _id(request, "before", 1 << 63), _id(request, "after", 0)
        limit = _limit(request)
        found = [
            message
            for message in self.world.standing(channel)
            if not message.deleted and not message.ephemeral and after < int(message.id) < before
        ]
        if "around" in request.query:
            # Guess: as many before as behind the message, which is among them.
            around = _id(request, "around", 0)
            older = [message for message in found if int(message.id) <= around]
            newer = [message for message in found if int(message.id) > around]
            found = older[-(limit // 2 + 1) :] + newer[: limit // 2]
        # With `after` alone the oldest come, else the newest; the newest is always first.
        found = found[:limit] if "after" in request.query else found[-limit:]
        return 200, [self._seen(message) for message in reversed(found)]

    def create_message(self, request: Request) -> Answer:
        channel = self.world.open_channel(request.ids["channel_id"])
        form = Form.read(request, flags=SUPPRESS_EMBEDS)
        return 200, self._seen(self.world.post(channel, self.world.bot, form))

    def message(self, request: Request) -> Answer:
        return 200, self._seen(self._message(request))

    def edit_message(self, request: Request) -> Answer:
        message = self._message(request)
        _check_kind(message)
        if message.author is not self.world.bot:
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        self._check_age(message)
        self.world.edit(message, Form.read(request, flags=SUPPRESS_EMBEDS))
        return 200, self._seen(message)

    def delete_message(self, request: Request) -> Answer:
        message = self._message(request)
        _check_kind(message)
        if message.author is not self.world.bot:
            raise Refusal(403, 50013, "Missing Permissions")
        self.world.delete(message)
        return 204, None

    def open_thread(self, request: Request) -> Answer:
        name = str(request.body.get("name", ""))
        if not 1 <= len(name) <= _THREAD_NAME:
            raise bad_length("name", 1, _THREAD_NAME)
        return 201, self.world.open_thread(self._message(request), self.world.bot, name).payload()

    def put_commands(self, request: Request) -> Answer:
        self.world.commands[:] = self._registered(request)
        return 200, self.world.commands

    def put_server_commands(self, request: Request) -> Answer:
        server = request.ids["guild_id"]
        if server != self.world.guild_id:
            raise Refusal(403, 50001, "Missing Access")
        self.world.server_commands[server] = [
            one | {"guild_id": server} for one in self._registered(request)
        ]
        return 200, self.world.server_commands[server]

    def _registered(self, request: Request) -> list[Payload]:
        self._check_application(request)
        sent = request.json if isinstance(request.json, list) else []
        kinds = [(one["name"], one.get("type", 1)) for one in sent]
        if len(set(kinds)) < len(kinds):
            raise bad_form("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Must be unique.")
        for one in sent:
            check_command(one)
        fixed: Payload = {"application_id": self.world.application_id, "version": snowflake()}
        return [_kept(one) | fixed | {"id": snowflake()} for one in sent]

    def commands(self, request: Request) -> Answer:
        self._check_application(request)
        return 200, self.world.commands

    def _seen(self, message: Message) -> Payload:
        """Without the Message Content intent REST hides what the gateway hides."""
        return message.payload(veiled_from=None if self.message_content else self.world.bot)

    def _check_age(self, message: Message) -> None:
        """Refuse more than a few edits of old messages.

        No header tells of their quota (discord-api-docs, issue 4413).
        """
        if self.world.clock.now() - message.created_at <= self.meter.limits.old_seconds:
            return
        if wait := self.meter.take("old_edits", message.channel.id).wait:
            text = "Maximum number of edits to messages older than 1 hour reached. Try again later"
            raise Refusal(429, 30046, text, **{"retry_after": wait, "global": False})

    def _message(self, request: Request) -> Message:
        return self.world.message(request.ids["channel_id"], request.ids["message_id"])

    def _check_application(self, request: Request) -> None:
        if request.ids["application_id"] != self.world.application_id:
            raise Refusal(403, 20012, "You are not authorized to perform this action")


def _id(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal():
        raise bad_form(name, "NUMBER_TYPE_COERCE", f'Value "{text}" is not snowflake.')
    return int(text)


def _limit(request: Request) -> int:
    text = request.query.get("limit", str(_LISTED))
    if not text.removeprefix("-").isdecimal():
        raise bad_form("limit", "NUMBER_TYPE_COERCE", f'Value "{text}" is not int.')
    if int(text) > _MOST_LISTED:
        most = f"int value should be less than or equal to {_MOST_LISTED}."
        raise bad_form("limit", "NUMBER_TYPE_MAX", most)
    if int(text) < 1:
        raise bad_form(
            "limit", "NUMBER_TYPE_MIN", "int value should be greater than or equal to 1."
        )
    return int(text)


def _check_kind(message: Message) -> None:
    """Refuse to change what Discord wrote (docs: JSON Error Codes)."""
    if message.kind == STARTER:
        raise Refusal(403, 50021, "Cannot execute action on a system message")


def _kept(command: Payload) -> Payload:
    """Return a command with its defaults (docs: Application Command Object)."""
    given = {key: value for key, value in command.items() if value is not None}
    # An application that servers and people may install ("Installation Context").
    seen: Payload = {"type": 1, "description": "", "integration_types": [0, 1], "nsfw": False}
    return seen | {"default_member_permissions": None, "contexts": None} | given
