"""What people do with the app besides writing, and where it answers: response_urls."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace

from tests.emulators.clock import Clock
from tests.emulators.slack.app import App
from tests.emulators.slack.arguments import SlackError, flag, text
from tests.emulators.slack.chat import Chat
from tests.emulators.slack.delivery import Delivery, Envelope, Outbox
from tests.emulators.slack.installation import APP_ID, VERIFICATION_TOKEN
from tests.emulators.slack.markup import buttons, escape, feedback
from tests.emulators.slack.message import Ephemeral, Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.truth import response_complaints
from tests.emulators.slack.views import Filled, Views
from tests.emulators.slack.workspace import Channel, Workspace

# docs: Handling user interaction, "Message responses": five times within 30 minutes.
RESPONSES, RESPONSE_SECONDS = 5, 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a person did something; `whispered` is the message that nobody else saw, if one is."""

    workspace: Workspace
    channel: Channel
    user_id: str
    whispered: Ephemeral | None = None


@dataclass(slots=True)
class _Address:
    place: Place
    expires: float  # the clock's seconds
    uses: int = 0


class ResponseUrls:
    """Hands out addresses under `base`, and shows what is posted to them."""

    def __init__(self, chat: Chat, clock: Clock) -> None:
        self.base = ""
        self._chat = chat
        self._clock = clock
        self._addresses: dict[str, _Address] = {}

    def open(self, place: Place) -> str:
        """Return a new address."""
        key = secrets.token_hex(8)
        self._addresses[key] = _Address(place, self._clock.now() + RESPONSE_SECONDS)
        return f"{self.base}actions/{place.workspace.team_id}/{key}"

    def use(self, key: str, body: Payload) -> None:
        """Take what was posted to an address; SlackError when it takes no more."""
        address = self._addresses.get(key)
        if address is None:
            raise SlackError("no_such_hook")
        if address.expires < self._clock.now():
            raise SlackError("expired_url")
        if address.uses >= RESPONSES:
            raise SlackError("used_url")
        address.uses += 1
        place = address.place
        if place.whispered and flag(body, "replace_original"):
            shown = self._chat.whisper_instead(place.whispered, body)
            address.place = replace(place, whispered=shown)
        else:
            self.answer(place, body)

    def answer(self, place: Place, body: Payload) -> None:
        """Show an answer to the person alone.

        It needs no membership (docs: Handling user interaction, "Publishing ephemeral responses").
        """
        if text(body, "response_type") not in ("", "ephemeral"):
            raise NotImplementedError("answers for all are not emulated")
        self._chat.whisper(place.workspace, place.channel, place.user_id, body)


class Interactions:
    """Tells of them once and shows what the app answers; Slack does not try again."""

    def __init__(
        self, app: App, outbox: Outbox, responses: ResponseUrls, views: Views, violations: list[str]
    ) -> None:
        self._app = app
        self._outbox = outbox
        self._views = views
        self._violations = violations
        self._responses = responses

    async def slash(self, channel_id: str, user_id: str, command: str, typed: str) -> Delivery:
        """Use a slash command and wait for its answer; Slack tries it only once.

        There are none in threads (docs: Implementing slash commands).
        """
        workspace = self._app.where(channel_id)
        place = Place(workspace, workspace.channels[channel_id], user_id)
        payload: Payload = {
            "token": VERIFICATION_TOKEN,
            "team_id": workspace.team_id,
            "team_domain": workspace.name.lower(),
            "channel_id": channel_id,
            "channel_name": place.channel.name,
            "user_id": user_id,
            "user_name": workspace.users[user_id].lower(),
            "command": command,
            "text": escape(typed),
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self._responses.open(place),
            "trigger_id": self._views.trigger(user_id),
        }
        delivery = await self._outbox.tell(Envelope("slash_commands", "slash_commands", payload))
        if answer := _answer(delivery):
            self._violations += response_complaints(answer)
            self._responses.answer(place, answer)
        return delivery

    async def click(self, channel_id: str, ts: str, user_id: str, action_id: str) -> Delivery:
        """Press a button and wait for the answer; LookupError when nobody can see that button."""
        post = self._app.post(channel_id, ts)
        return await self._press_below(post, user_id, _button(post.blocks, action_id))

    async def rate(self, channel_id: str, ts: str, user_id: str, which: str) -> Delivery:
        """Press the "positive" or "negative" feedback button of a message.

        The action has the value of the pressed one (guess, from bolt's templates for agents).
        """
        post = self._app.post(channel_id, ts)
        block_id, element = next(feedback(post.blocks))
        half = element[f"{which}_button"]
        assert isinstance(half, dict)
        kind, action_id = element["type"], element.get("action_id", "")
        action = {**half, "type": kind, "action_id": action_id, "block_id": block_id}
        return await self._press_below(post, user_id, action)

    async def press(self, said: Ephemeral, action_id: str) -> Delivery:
        """Press a button of a message that one person alone saw; LookupError if it has none."""
        workspace = self._app.where(said.channel_id)
        place = Place(workspace, workspace.channels[said.channel_id], said.user_id, said)
        action = _button(list(said.blocks), action_id)
        return await self._press(place, said.ts, said.thread_ts, action)

    async def _press_below(self, post: Post, user_id: str, action: Payload) -> Delivery:
        workspace = self._app.where(post.channel_id)
        place = Place(workspace, workspace.channels[post.channel_id], user_id)
        return await self._press(place, post.ts, post.thread_ts, action, message=post.payload())

    async def _press(
        self, place: Place, ts: str, thread_ts: str | None, action: Payload, **more: object
    ) -> Delivery:
        payload: Payload = {
            **_done(place, self._views.trigger(place.user_id)),
            "type": "block_actions",
            "container": _container(place, ts, thread_ts),
            "state": {"values": {}},
            "actions": [{**action, "action_ts": place.workspace.timestamp()}],
            "response_url": self._responses.open(place),
            **more,
        }
        return await self._outbox.tell(Envelope("block_actions", "interactive", payload, ts))

    async def press_home(self, user_id: str, action_id: str) -> Delivery:
        """Press a button of the Home tab, which is in no channel."""
        workspace = self._app.where(user_id)
        view = self._views.home(user_id)
        if view is None:
            raise LookupError("no Home tab was published")
        payload: Payload = {
            **_doer(workspace, user_id, self._views.trigger(user_id)),
            "type": "block_actions",
            "container": {"type": "view", "view_id": view.id},
            "view": view.payload(workspace),
            "actions": [{**view.buttons[action_id], "action_ts": workspace.timestamp()}],
        }
        return await self._outbox.tell(Envelope("block_actions", "interactive", payload))

    async def choose(self, channel_id: str, ts: str, user_id: str, callback_id: str) -> Delivery:
        """Choose an entry of the app in the menu of a message (docs: message shortcut payload)."""
        post, workspace = self._app.post(channel_id, ts), self._app.where(channel_id)
        place = Place(workspace, workspace.channels[post.channel_id], user_id)
        payload: Payload = {
            **_done(place, self._views.trigger(user_id)),
            "type": "message_action",
            "action_ts": workspace.timestamp(),
            "callback_id": callback_id,
            "message_ts": post.ts,
            "message": post.payload(),
            "response_url": self._responses.open(place),
        }
        return await self._outbox.tell(Envelope("message_action", "interactive", payload, post.ts))

    async def submit(self, user_id: str, **filled: Filled) -> Delivery:
        """Fill in the form that a person sees, by its block ids, and submit it.

        What is not named stays as it is. LookupError where there is no such form or field, or
        Slack would not let the person submit it.
        """
        view, workspace = self._views.modal(user_id), self._app.where(user_id)
        if view is None or not view.fields:
            raise LookupError("there is no form")
        payload: Payload = {
            **_doer(workspace, view.user_id, self._views.trigger(view.user_id)),
            "type": "view_submission",
            "view": view.payload(workspace, view.values(filled)),
            "response_urls": [],
        }
        delivery = await self._outbox.tell(Envelope("view_submission", "interactive", payload))
        if delivery.status == 200:
            answer = json.loads(delivery.body) if delivery.body.strip() else {}
            self._views.respond(view, answer, self._violations)
        return delivery

    async def tell(self, payload: Payload) -> Delivery:
        """Tell the app this once, as an interaction whatever its shape, and wait for the answer."""
        return await self._outbox.tell(Envelope(str(payload.get("type")), "interactive", payload))


def _button(blocks: list[Payload], action_id: str) -> Payload:
    found = {name: {**button, "block_id": block_id} for name, block_id, button in buttons(blocks)}
    return found[action_id]


def _done(place: Place, trigger_id: str) -> Payload:
    """Return what tells of who did something in a channel."""
    channel: Payload = {"id": place.channel.id, "name": place.channel.name}
    return {**_doer(place.workspace, place.user_id, trigger_id), "channel": channel}


def _doer(workspace: Workspace, user_id: str, trigger_id: str) -> Payload:
    name = workspace.users[user_id].lower()
    return {
        "user": {
            "id": user_id,
            "username": name,
            "name": name,
            "team_id": workspace.team_of(user_id),
        },
        "api_app_id": APP_ID,
        "token": VERIFICATION_TOKEN,
        "trigger_id": trigger_id,
        "team": {"id": workspace.team_id, "domain": workspace.name.lower()},
        "enterprise": None,
        "is_enterprise_install": False,
    }


def _container(place: Place, ts: str, thread_ts: str | None) -> Payload:
    container: Payload = {
        "type": "message",
        "message_ts": ts,
        "channel_id": place.channel.id,
        "is_ephemeral": place.whispered is not None,
    }
    return {**container, "thread_ts": thread_ts} if thread_ts else container


def _answer(delivery: Delivery) -> Payload:
    """Return what the acknowledgement of a command says."""
    if delivery.status != 200 or not delivery.body.strip():
        return {}
    answer: Payload = json.loads(delivery.body)
    return answer if answer.get("text") or answer.get("blocks") else {}
