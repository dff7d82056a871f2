"""Who is who: Slack's methods about people and the bot itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tests.emulators.slack.arguments import SlackError, text
from tests.emulators.slack.message import SLACKBOT
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace


def who(workspace: Workspace, _args: Payload) -> Payload:
    """auth.test."""
    return {
        "url": f"https://{workspace.name.lower()}.slack.test/",
        "team": workspace.name,
        "user": "parley",
        "team_id": workspace.team_id,
        "user_id": workspace.bot_user_id,
        "bot_id": workspace.bot_id,
        "is_enterprise_install": False,
    }


def user(workspace: Workspace, args: Payload) -> Payload:
    """users.info."""
    user_id = text(args, "user")
    names = {**workspace.users, workspace.bot_user_id: "parley", SLACKBOT: "slackbot"}
    if user_id not in names:
        raise SlackError("user_not_found")
    found = _user(workspace, user_id, names[user_id])
    if args.get("include_locale") in (True, "true", "True", "1"):
        found["locale"] = workspace.locales.get(user_id, "en-US")
    return {"user": found}


def _user(workspace: Workspace, user_id: str, name: str) -> Payload:
    return {
        "id": user_id,
        "team_id": workspace.team_of(user_id),
        "name": name.lower(),
        "real_name": name,
        "deleted": False,
        **_rights(workspace, user_id),
        "is_bot": user_id == workspace.bot_user_id,
        "is_app_user": False,
        "updated": 0,
        **_zone(workspace, user_id),
        "profile": _profile(workspace, name),
    }


def _zone(workspace: Workspace, user_id: str) -> Payload:
    """Return the time zone (docs: User object, tz, tz_label and tz_offset, in seconds)."""
    zone = workspace.zones.get(user_id, "Etc/UTC")
    offset = datetime.now(ZoneInfo(zone)).utcoffset() or timedelta()
    return {"tz": zone, "tz_label": zone, "tz_offset": int(offset.total_seconds())}


def _rights(workspace: Workspace, user_id: str) -> Payload:
    """Return the roles (docs: User object, is_admin; an owner is an admin, too)."""
    role = workspace.roles.get(user_id)
    return {
        "is_admin": role is not None,
        "is_owner": role == "owner",
        "is_primary_owner": False,
        "is_restricted": False,
        "is_ultra_restricted": False,
    }


def _profile(workspace: Workspace, name: str) -> Payload:
    """Return the profile object (docs: User object, "Profile")."""
    empty = ("avatar_hash", "phone", "skype", "status_emoji", "status_text", "title")
    return {
        **dict.fromkeys(empty, ""),
        "display_name": name,
        "display_name_normalized": name,
        "fields": None,
        "real_name": name,
        "real_name_normalized": name,
        "team": workspace.team_id,
    }


METHODS = {"auth.test": who, "users.info": user}
