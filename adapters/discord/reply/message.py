"""A page as a Discord message, and what a message says about its turn."""

from __future__ import annotations

from typing import Any

import discord

from adapters.discord.reply.tables import tables_as_code
from bot.domain import Json, Page

# A button's custom_id is one of these and the turn's id.
STOP, REGENERATE = "stop:", "regenerate:"
REGENERATE_LABEL = "Regenerate"
LIMIT = 2000  # Discord's documentation, "Create Message"

# Discord's documentation, "Component Reference": a row, a button, and the gray of a button.
_ROW, _BUTTON, _GRAY = 1, 2, 2
# Message types; Discord itself also writes messages in the bot's name ("Message Types").
_DEFAULT, _REPLY = 0, 19


def body_of(page: Page, turn_id: str) -> dict[str, Json]:
    """Return the message of a page, without notifications and link previews."""
    return {
        "content": tables_as_code(page.text),
        "components": [{"type": _ROW, "components": [it]} for it in _buttons(page, turn_id)],
        # Without it, Discord uses its own default (Discord's documentation, "Allowed Mentions
        # Object"), for an edit too.
        "allowed_mentions": {"parse": [], "replied_user": False},
        "flags": discord.MessageFlags(suppress_embeds=True).value,
    }


def shows(message: dict[str, Any], page: Page, turn_id: str) -> bool:
    """Whether a message already is this page."""
    wanted = [button["custom_id"] for button in _buttons(page, turn_id)]
    # Discord strips a text.
    same_text = message["content"] == tables_as_code(page.text).strip()
    return bool(same_text and _custom_ids(message) == wanted)


def turns_of(message: dict[str, Any]) -> set[str]:
    """Return the ids of the turns that a message's buttons name."""
    return {name.partition(":")[2] for name in _custom_ids(message)}


def answered_by(message: dict[str, Any]) -> str | None:
    """Return the id of the message to which a message replies."""
    answered: str | None = (message.get("message_reference") or {}).get("message_id")
    return answered


def is_page(message: dict[str, Any], bot_id: str) -> bool:
    """Whether the bot wrote a message, and not as the response to an interaction."""
    author = message.get("author") or {}
    own = author.get("id") == bot_id and message.get("type") in (_DEFAULT, _REPLY)
    return own and not message.get("interaction_metadata")


def _custom_ids(message: dict[str, Any]) -> list[str]:
    return [it["custom_id"] for row in message["components"] for it in row.get("components", ())]


def _buttons(page: Page, turn_id: str) -> list[dict[str, Json]]:
    if page.final and not page.last:
        return []
    label, action = (REGENERATE_LABEL, REGENERATE) if page.final else ("Stop", STOP)
    return [{"type": _BUTTON, "style": _GRAY, "label": label, "custom_id": action + turn_id}]
