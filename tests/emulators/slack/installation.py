"""Who the app is in a workspace where it is installed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

APP_ID = "A0PARLEY001"
VERIFICATION_TOKEN = "an-old-verification-token"


@dataclass(frozen=True, slots=True)
class Installation:
    """The app in one workspace: the ids of that workspace and of the bot in it, and its token."""

    team_id: str
    bot_id: str
    bot_user_id: str
    bot_token: str = field(repr=False)


def installation(number: int) -> Installation:
    """Return the app's installation in the workspace of that number, with a token of its own."""
    return Installation(
        team_id=team_id(number),
        bot_id=bot_id(number),
        bot_user_id=bot_user_id(number),
        bot_token=f"xoxb-{secrets.token_hex(12)}",
    )


def team_id(number: int) -> str:
    """Return the id of the workspace of that number."""
    return f"T0PARLEY{number:03d}"


def bot_id(number: int) -> str:
    """Return the id that the bot's messages carry there."""
    return f"B0PARLEY{number:03d}"


def bot_user_id(number: int) -> str:
    """Return the id by which people mention the bot there."""
    return f"U0PARLEY{number:03d}"
