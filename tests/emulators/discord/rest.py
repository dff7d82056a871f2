"""Discord's REST methods as the emulator knows them, each a function of a request."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.emulators.discord.forms import Form, Refusal, bad_form
from tests.emulators.discord.objects import (
    COMMAND_RESPONSE,
    DEFAULT,
    EPHEMERAL,
    LOADING,
    PUBLIC_THREAD,
    SUPPRESS_EMBEDS,
    Interaction,
    Message,
    Payload,
    snowflake,
)
from tests.emulators.discord.world import World

_MESSAGE, _DEFERRED_MESSAGE, _DEFERRED_UPDATE, _UPDATE = 4, 5, 6, 7
_MESSAGE_CONTENT_LIMITED = 1 << 19


@dataclass(frozen=True, slots=True)
class Request:
    """What a bot asks for: the ids in the path, the query, and the JSON body."""

    ids: Mapping[str, str]
    query: Mapping[str, str]
    json: object

    @property
    def body(self) -> Payload:
        """The body where it is an object, else an empty one."""
        return self.json if isinstance(self.json, dict) else {}


Answer = tuple[int, object]


@dataclass(frozen=True, slots=True)
class Rest:
    """Answers requests, or raises Refusal; `ROUTES` says which method answers which.

    An interaction has to be answered within `callback_seconds`, and its token lives for
    `token_seconds`.
    """

    world: World
    message_content: bool
    callback_seconds: float
    token_seconds: float
    gateway_url: Callable[[], str]

    def me(self, _: Request) -> Answer:
        return 200, self.world.bot.payload() | {"verified": True, "mfa_enabled": False}

    def application(self, _: Request) -> Answer:
        return 200, {
            "id": self.world.application_id,
            "name": "Parley",
            "icon": None,
            "description": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "owner": self.world.bot.payload(),
            "flags": _MESSAGE_CONTENT_LIMITED if self.message_content else 0,
        }

    def gateway(self, _: Request) -> Answer:
        return 200, {"url": self.gateway_url()}

    def gateway_for_bot(self, _: Request) -> Answer:
        limit = {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1}
        return 200, {"url": self.gateway_url(), "shards": 1, "session_start_limit": limit}

    def channel(self, request: Request) -> Answer:
        return 200, self.world.channel(request.ids["channel_id"]).payload()

    def modify_channel(self, request: Request) -> Answer:
        """Only unarchiving is emulated."""
        channel = self.world.channel(request.ids["channel_id"])
        if channel.kind != PUBLIC_THREAD or request.body != {"archived": False}:
            raise Refusal(400, 50024, "Cannot execute action on this channel type")
        self.world.unarchive(channel)
        return 200, channel.payload()

    def typing(self, request: Request) -> Answer:
        self.world.typing.append(self.world.channel(request.ids["channel_id"]).id)
        return 204, None

    def messages(self, request: Request) -> Answer:
        channel = self.world.channel(request.ids["channel_id"])
        before = int(request.query.get("before", 1 << 63))
        after = int(request.query.get("after", 0))
        found = [
            message
            for message in self.world.messages.values()
            if message.channel is channel
            and not message.deleted
            and not message.ephemeral
            and after < int(message.id) < before
        ]
        limit = int(request.query.get("limit", 50))
        # With `after` alone the oldest come, else the newest; the newest is always first.
        found = found[:limit] if "after" in request.query else found[-limit:]
        return 200, [self._seen(message) for message in reversed(found)]

    def create_message(self, request: Request) -> Answer:
        channel = self.world.channel(request.ids["channel_id"])
        form = Form.read(request.body, flags=SUPPRESS_EMBEDS)
        return 200, self._seen(self.world.post(channel, self.world.bot, form))

    def message(self, request: Request) -> Answer:
        return 200, self._seen(self._message(request))

    def edit_message(self, request: Request) -> Answer:
        message = self._message(request)
        if message.author is not self.world.bot:
            raise Refusal(403, 50005, "Cannot edit a message authored by another user")
        self.world.edit(message, Form.read(request.body, flags=SUPPRESS_EMBEDS))
        return 200, self._seen(message)

    def delete_message(self, request: Request) -> Answer:
        message = self._message(request)
        if message.author is not self.world.bot:
            raise Refusal(403, 50013, "Missing Permissions")
        self.world.delete(message)
        return 204, None

    def open_thread(self, request: Request) -> Answer:
        name = str(request.body.get("name", ""))
        if not 1 <= len(name) <= 100:
            raise bad_form("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
        return 201, self.world.open_thread(self._message(request), name).payload()

    def open_dm(self, request: Request) -> Answer:
        return 200, self.world.dm_with(str(request.body.get("recipient_id"))).payload()

    def put_commands(self, request: Request) -> Answer:
        self._check_application(request)
        sent = request.json if isinstance(request.json, list) else []
        names = [str(one["name"]) for one in sent]
        if len(set(names)) < len(names):
            raise bad_form("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Must be unique.")
        fixed: Payload = {"application_id": self.world.application_id, "version": snowflake()}
        self.world.commands[:] = [{"type": 1} | one | fixed | {"id": snowflake()} for one in sent]
        return 200, self.world.commands

    def commands(self, request: Request) -> Answer:
        self._check_application(request)
        return 200, self.world.commands

    def callback(self, request: Request) -> Answer:
        interaction = self._unanswered(request)
        kind = request.body.get("type")
        data = request.body.get("data")
        form = Form.read(data if isinstance(data, dict) else {}, flags=SUPPRESS_EMBEDS | EPHEMERAL)
        if kind in (_MESSAGE, _DEFERRED_MESSAGE):
            interaction.original = self._respond(interaction, form, loading=kind != _MESSAGE)
        elif kind in (_DEFERRED_UPDATE, _UPDATE) and interaction.message:
            interaction.original = interaction.message
            if kind == _UPDATE:
                self.world.edit(interaction.message, form)
        else:
            raise bad_form("type", "BASE_TYPE_CHOICES", "This interaction takes no such answer.")
        interaction.answered = True
        if request.query.get("with_response", "").lower() not in ("1", "true"):
            return 204, None
        return 200, self._outcome(interaction, kind)

    def webhook_message(self, request: Request) -> Answer:
        return 200, self._webhook_message(request).payload()

    def edit_webhook_message(self, request: Request) -> Answer:
        message = self._webhook_message(request)
        self.world.edit(message, Form.read(request.body, flags=SUPPRESS_EMBEDS))
        return 200, message.payload()

    def delete_webhook_message(self, request: Request) -> Answer:
        self.world.delete(self._webhook_message(request))
        return 204, None

    def follow_up(self, request: Request) -> Answer:
        interaction = self._webhook(request)
        form = Form.read(request.body, flags=SUPPRESS_EMBEDS | EPHEMERAL)
        original = interaction.original
        # The first follow-up takes the place of "thinking" (docs: Create Followup Message).
        if original and original.flags & LOADING and not original.deleted:
            self.world.edit(original, form)
            return 200, original.payload()
        return 200, self._respond(interaction, form, loading=False).payload()

    def _seen(self, message: Message) -> Payload:
        """Without the Message Content intent REST hides what the gateway hides."""
        return message.payload(veiled_from=None if self.message_content else self.world.bot)

    def _message(self, request: Request) -> Message:
        return self.world.message(request.ids["channel_id"], request.ids["message_id"])

    def _check_application(self, request: Request) -> None:
        if request.ids["application_id"] != self.world.application_id:
            raise Refusal(403, 20012, "You are not authorized to perform this action")

    def _unanswered(self, request: Request) -> Interaction:
        interaction = self.world.interactions.get(request.ids["interaction_id"])
        if interaction is None or interaction.token != request.ids["interaction_token"]:
            raise Refusal(404, 10062, "Unknown interaction")
        if interaction.answered:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        if time.monotonic() - interaction.created_at > self.callback_seconds:
            raise Refusal(404, 10062, "Unknown interaction")
        return interaction

    def _respond(self, interaction: Interaction, form: Form, *, loading: bool) -> Message:
        kind = COMMAND_RESPONSE if interaction.kind == 2 else DEFAULT
        return self.world.post(
            interaction.channel,
            self.world.bot,
            form,
            kind=kind,
            interaction=interaction,
            loading=loading,
        )

    def _outcome(self, interaction: Interaction, kind: object) -> Payload:
        about: Payload = {"id": interaction.id, "type": interaction.kind}
        if interaction.original is None:
            return {"interaction": about, "resource": {"type": kind}}
        about["response_message_id"] = interaction.original.id
        about["response_message_loading"] = bool(interaction.original.flags & LOADING)
        about["response_message_ephemeral"] = interaction.original.ephemeral
        resource = {"type": kind, "message": interaction.original.payload()}
        return {"interaction": about, "resource": resource}

    def _webhook(self, request: Request) -> Interaction:
        for interaction in self.world.interactions.values():
            known = interaction.token == request.ids["webhook_token"]
            young = time.monotonic() - interaction.created_at < self.token_seconds
            ours = request.ids["webhook_id"] == self.world.application_id
            if known and young and ours and interaction.answered:
                return interaction
        raise Refusal(404, 10015, "Unknown Webhook")

    def _webhook_message(self, request: Request) -> Message:
        interaction, message_id = self._webhook(request), request.ids["message_id"]
        found = self.world.messages.get(message_id)
        if message_id == "@original":
            found = interaction.original
        elif found and found.interaction is not interaction:
            found = None
        if found is None or found.deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return found


@dataclass(frozen=True, slots=True)
class Route:
    """One method of the API.

    `limit` names the bucket and the id that has one of its own; `open` needs no token.
    """

    method: str
    template: str
    answer: Callable[[Rest, Request], Answer]
    limit: tuple[str, str] | None = None
    open: bool = False
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.template)
        object.__setattr__(self, "pattern", re.compile(pattern))


def _routes() -> tuple[Route, ...]:
    messages = "/channels/{channel_id}/messages"
    message = messages + "/{message_id}"
    commands = "/applications/{application_id}/commands"
    webhook = "/webhooks/{webhook_id}/{webhook_token}"
    response = webhook + "/messages/{message_id}"
    callback = "/interactions/{interaction_id}/{interaction_token}/callback"
    per_token = ("webhook", "webhook_token")
    return (
        Route("GET", "/users/@me", Rest.me),
        Route("POST", "/users/@me/channels", Rest.open_dm),
        Route("GET", "/oauth2/applications/@me", Rest.application),
        Route("GET", "/gateway", Rest.gateway, open=True),
        Route("GET", "/gateway/bot", Rest.gateway_for_bot),
        Route("GET", "/channels/{channel_id}", Rest.channel),
        Route("PATCH", "/channels/{channel_id}", Rest.modify_channel),
        Route("POST", "/channels/{channel_id}/typing", Rest.typing),
        Route("GET", messages, Rest.messages),
        Route("POST", messages, Rest.create_message, limit=("create", "channel_id")),
        Route("GET", message, Rest.message),
        Route("PATCH", message, Rest.edit_message, limit=("edit", "channel_id")),
        Route("DELETE", message, Rest.delete_message),
        Route("POST", message + "/threads", Rest.open_thread),
        Route("GET", commands, Rest.commands),
        Route("PUT", commands, Rest.put_commands),
        Route("POST", callback, Rest.callback, open=True),
        Route("POST", webhook, Rest.follow_up, limit=per_token, open=True),
        Route("GET", response, Rest.webhook_message, open=True),
        Route("PATCH", response, Rest.edit_webhook_message, limit=per_token, open=True),
        Route("DELETE", response, Rest.delete_webhook_message, open=True),
    )


ROUTES = _routes()
