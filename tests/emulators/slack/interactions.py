"""What people do with the app besides writing: commands and buttons, as Slack tells of them."""

from __future__ import annotations

import json
import secrets

from tests.emulators.slack.delivery import Delivery, Envelope, Outbox
from tests.emulators.slack.installation import APP_ID, VERIFICATION_TOKEN
from tests.emulators.slack.markup import buttons, escape, feedback
from tests.emulators.slack.message import Post
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.response_urls import Place, ResponseUrls
from tests.emulators.slack.spec import response_complaints
from tests.emulators.slack.workspace import Workspace


class Interactions:
    """Tells of them once and shows what the app answers; Slack does not try again."""

    def __init__(self, outbox: Outbox, responses: ResponseUrls, violations: list[str]) -> None:
        self._outbox = outbox
        self._violations = violations
        self._responses = responses

    async def slash(
        self, workspace: Workspace, channel_id: str, user_id: str, command: str, typed: str
    ) -> Delivery:
        """Tell of a slash command (docs: Implementing slash commands)."""
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
            "trigger_id": _trigger_id(),
        }
        delivery = await self._outbox.tell(Envelope("slash_commands", "slash_commands", payload))
        if answer := _answer(delivery):
            self._violations += response_complaints(answer)
            self._responses.answer(place, answer)
        return delivery

    async def click(
        self, workspace: Workspace, post: Post, user_id: str, action_id: str
    ) -> Delivery:
        """Tell of a button; LookupError when nobody can see it (docs: block_actions payload)."""
        found = {name: (block_id, button) for name, block_id, button in buttons(post.blocks)}
        block_id, button = found[action_id]
        return await self._press(workspace, post, user_id, {**button, "block_id": block_id})

    async def rate(self, workspace: Workspace, post: Post, user_id: str, which: str) -> Delivery:
        """Tell of the "positive" or "negative" feedback button of a message.

        The action has the value of the pressed one (guess, from bolt's templates for agents).
        """
        block_id, element = next(feedback(post.blocks))
        half = element[f"{which}_button"]
        assert isinstance(half, dict)
        kind, action_id = element["type"], element.get("action_id", "")
        action = {**half, "type": kind, "action_id": action_id, "block_id": block_id}
        return await self._press(workspace, post, user_id, action)

    async def _press(
        self, workspace: Workspace, post: Post, user_id: str, action: Payload
    ) -> Delivery:
        action = {**action, "action_ts": workspace.timestamp()}
        place = Place(workspace, workspace.channels[post.channel_id], user_id, post.ts)
        payload: Payload = {
            **_block_actions(place, post),
            "actions": [action],
            "response_url": self._responses.open(place),
        }
        return await self._outbox.tell(Envelope("block_actions", "interactive", payload, post.ts))

    async def tell(self, payload: Payload) -> Delivery:
        """Tell of an interaction, whatever its shape."""
        return await self._outbox.tell(Envelope(str(payload.get("type")), "interactive", payload))


def _block_actions(place: Place, post: Post) -> Payload:
    """Return what tells of where a button was pressed, and by whom."""
    team_id, name = place.workspace.team_id, place.workspace.users[place.user_id].lower()
    container: Payload = {
        "type": "message",
        "message_ts": post.ts,
        "channel_id": post.channel_id,
        "is_ephemeral": False,
    }
    if post.thread_ts:
        container["thread_ts"] = post.thread_ts
    return {
        "type": "block_actions",
        "user": {"id": place.user_id, "username": name, "name": name, "team_id": team_id},
        "api_app_id": APP_ID,
        "token": VERIFICATION_TOKEN,
        "container": container,
        "trigger_id": _trigger_id(),
        "team": {"id": team_id, "domain": place.workspace.name.lower()},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": place.channel.id, "name": place.channel.name},
        "message": post.payload(),
        "state": {"values": {}},
    }


def _trigger_id() -> str:
    return f"{secrets.randbelow(10**13)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"


def _answer(delivery: Delivery) -> Payload:
    """Return what the acknowledgement of a command says: JSON, or text for the person alone."""
    if delivery.status != 200 or not delivery.body.strip():
        return {}
    if not delivery.body.startswith("{"):
        return {"text": delivery.body}
    answer: Payload = json.loads(delivery.body)
    return answer if answer.get("text") or answer.get("blocks") else {}
