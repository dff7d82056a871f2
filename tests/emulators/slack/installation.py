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
        team_id=f"T0PARLEY{number:03d}",
        bot_id=f"B0PARLEY{number:03d}",
        bot_user_id=f"U0PARLEY{number:03d}",
        bot_token=f"xoxb-{secrets.token_hex(12)}",
    )
