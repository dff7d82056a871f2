"""Who we are in a workspace."""

from __future__ import annotations

from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import TokenRefused, code_of, translated
from bot.errors import CannotStart, SurfaceError, Unreachable, WriteDelayed, WriteFailed


@dataclass(frozen=True, slots=True)
class Identity:
    """The workspace and the bot in it: `user` is whom people mention, `bot` sends the messages.

    `enterprise` is the workspace's organisation, empty if there is none. If the app `is_org_wide`,
    the token is that of an installation in the whole organisation, and good in each workspace.
    """

    team: str
    user: str
    bot: str
    name: str
    enterprise: str = ""
    is_org_wide: bool = False


async def identify(client: AsyncWebClient) -> Identity:
    """Ask Slack whose token this is; CannotStart when it refuses, Unreachable when it is away."""
    try:
        async with translated():
            answer = await client.auth_test()
    except SurfaceError as error:
        raise cannot_start("SLACK_BOT_TOKEN", client, error) from error
    if not answer.get("bot_id"):
        raise CannotStart("SLACK_BOT_TOKEN is no bot's token: those begin with xoxb-")
    return Identity(
        team=str(answer["team_id"]),
        user=str(answer["user_id"]),
        bot=str(answer["bot_id"]),
        name=str(answer["user"]),
        enterprise=str(answer.get("enterprise_id") or ""),
        is_org_wide=answer.get("is_enterprise_install") is True,
    )


def cannot_start(variable: str, client: AsyncWebClient, error: SurfaceError) -> CannotStart:
    """Say which variable Slack refuses, or that Slack cannot be reached."""
    away = isinstance(error, WriteDelayed | WriteFailed) and not isinstance(error, TokenRefused)
    if away:
        return Unreachable(f"Slack cannot be reached at {client.base_url}: {error}")
    return CannotStart(f"Slack refuses {variable}: {code_of(error)}")
