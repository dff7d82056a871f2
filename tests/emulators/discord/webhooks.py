"""How a bot answers interactions, each a function of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.emulators.discord import mentions
from tests.emulators.discord.components import check_form
from tests.emulators.discord.forms import Form
from tests.emulators.discord.interaction import Interaction
from tests.emulators.discord.message import (
    COMMAND_RESPONSE,
    DEFAULT,
    EPHEMERAL,
    LOADING,
    SUPPRESS_EMBEDS,
    Message,
)
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import Answer, Refusal, Request, bad_form
from tests.emulators.discord.world import World

# docs: Receiving and Responding, "Interaction Callback Type".
_MESSAGE, _DEFERRED_MESSAGE, _DEFERRED_UPDATE, _UPDATE, _CHOICES, _FORM = 4, 5, 6, 7, 8, 9
AUTOCOMPLETION, _SENT_FORM = 4, 5  # docs: Interaction Type
_ALLOWED = mentions.BY_DEFAULT_OF_WEBHOOKS
_FOLLOW_UPS = 5  # of one that a person's own install allows (docs: Create Followup Message)


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Answers requests, or raises Refusal.

    An interaction has to be answered within `callback_seconds`, and its token lives for
    `token_seconds`; then its webhook is known no more by it (discord-api-docs, issue 6851).
    """

    world: World
    callback_seconds: Callable[[], float]
    token_seconds: float

    def callback(self, request: Request) -> Answer:
        interaction = self._unanswered(request)
        kind = request.body.get("type")
        data = request.body.get("data")
        body = data if isinstance(data, dict) and kind != _FORM else {}
        form = Form.of(body, {}, flags=SUPPRESS_EMBEDS | EPHEMERAL, default=_ALLOWED)
        if interaction.kind == AUTOCOMPLETION and kind == _CHOICES and isinstance(data, dict):
            interaction.choices = data.get("choices")
        elif interaction.kind == AUTOCOMPLETION or kind == _CHOICES:
            raise bad_form("type", "BASE_TYPE_CHOICES", "This interaction takes no such answer.")
        elif kind == _FORM and interaction.kind != _SENT_FORM and isinstance(data, dict):
            check_form(data)
            interaction.modal = data
        elif kind in (_MESSAGE, _DEFERRED_MESSAGE):
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
        return 200, _outcome(interaction, kind)

    def message(self, request: Request) -> Answer:
        return 200, self._message(request).payload()

    def edit(self, request: Request) -> Answer:
        message = self._message(request)
        self.world.edit(message, Form.read(request, flags=SUPPRESS_EMBEDS, default=_ALLOWED))
        return 200, message.payload()

    def delete(self, request: Request) -> Answer:
        self.world.delete(self._message(request))
        return 204, None

    def follow_up(self, request: Request) -> Answer:
        interaction = self._webhook(request)
        form = Form.read(request, flags=SUPPRESS_EMBEDS | EPHEMERAL, default=_ALLOWED)
        original = interaction.original
        # The first follow-up takes the place of "thinking" (docs: Create Followup Message).
        if original and original.flags & LOADING and not original.deleted:
            self.world.edit(original, form)
            return 200, original.payload()
        interaction.follow_ups += 1
        if interaction.channel.foreign and interaction.follow_ups > _FOLLOW_UPS:
            # The code is a guess; the documentation tells only the number.
            raise Refusal(400, 40094, "This interaction has reached its follow-up messages")
        return 200, self._respond(interaction, form, loading=False).payload()

    def _unanswered(self, request: Request) -> Interaction:
        interaction = self.world.interactions.get(request.ids["interaction_id"])
        if interaction is None or interaction.token != request.ids["interaction_token"]:
            raise Refusal(404, 10062, "Unknown interaction")
        if interaction.answered:
            raise Refusal(400, 40060, "Interaction has already been acknowledged.")
        if self._age(interaction) > self.callback_seconds():
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

    def _webhook(self, request: Request) -> Interaction:
        ours = request.ids["webhook_id"] == self.world.application_id
        for interaction in self.world.interactions.values():
            if not ours or interaction.token != request.ids["webhook_token"]:
                continue
            if self._age(interaction) >= self.token_seconds:
                raise Refusal(401, 50027, "Invalid Webhook Token")
            if interaction.answered:
                return interaction
        raise Refusal(404, 10015, "Unknown Webhook")

    def _message(self, request: Request) -> Message:
        interaction, message_id = self._webhook(request), request.ids["message_id"]
        found = self.world.messages.get(message_id)
        if message_id == "@original":
            found = interaction.original
        elif found and found.interaction is not interaction:
            found = None
        if found is None or found.deleted:
            raise Refusal(404, 10008, "Unknown Message")
        return found

    def _age(self, interaction: Interaction) -> float:
        return self.world.clock.now() - interaction.created_at


def _outcome(interaction: Interaction, kind: object) -> Payload:
    """Return docs: Create Interaction Response, "Interaction Callback Response Object".

    The OpenAPI document has a resource only for what creates or changes a message at once.
    """
    about: Payload = {"id": interaction.id, "type": interaction.kind}
    if interaction.original is None:
        return {"interaction": about}
    about["response_message_id"] = interaction.original.id
    about["response_message_loading"] = bool(interaction.original.flags & LOADING)
    about["response_message_ephemeral"] = interaction.original.ephemeral
    if kind not in (_MESSAGE, _UPDATE):
        return {"interaction": about}
    resource = {"type": kind, "message": interaction.original.payload()}
    return {"interaction": about, "resource": resource}
