"""What Slack's documentation says of each emulated method: rate, scopes, content types, errors.

A method exists when it has a row here and a handler. Sources: docs.slack.dev/reference/methods,
"Facts", "Arguments" and "Errors" of each; docs: Rate limits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.emulators.slack.rates import (
    CHANNEL,
    HUNDREDS,
    POSTS,
    STATUSES,
    TIER_2,
    TIER_3,
    TIER_4,
    Rate,
)


def _words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


def _strings(names: str, **others: str) -> dict[str, str]:
    """Return the types of arguments or fields, most of which are strings."""
    return dict.fromkeys(names.split(), "string") | others


# What an app that chats asks for, when it is installed.
SCOPES = _words(
    "app_mentions:read assistant:write channels:history channels:read chat:write commands",
    "files:read files:write groups:history groups:read im:history mpim:history users:read",
)
# docs: "Errors" that every method's page lists.
COMMON_ERRORS = _words(
    "account_inactive fatal_error internal_error invalid_arguments invalid_auth invalid_form_data",
    "invalid_json invalid_post_type json_not_object missing_post_type missing_scope",
    "not_allowed_token_type not_authed ratelimited token_expired token_revoked",
)

_KINDS = ("channel", "group", "im", "mpim")
_HISTORY = tuple(f"{kind}:history" for kind in ("channels", "groups", "im", "mpim"))
_READ = tuple(f"{kind}:read" for kind in ("channels", "groups", "im", "mpim"))
_WRITE = ("chat:write",)
_PLACE = _strings("channel ts")
_BLOCK_ERRORS = _words(
    "invalid_blocks invalid_blocks_format invalid_metadata_format invalid_metadata_schema",
    "metadata_too_large msg_blocks_too_long",
)
# docs: "Errors" of the three methods of streams; channel_not_found, no_text and msg_too_long are
# not in them, but are what Slack answers (see streams.py).
_STREAM_ERRORS = _words(
    "channel_not_found invalid_blocks invalid_blocks_format invalid_chunks invalid_metadata_schema",
    "msg_blocks_too_long msg_blocks_too_many msg_too_long no_text",
)
_RUNNING_ERRORS = _words(
    "message_not_found message_not_in_streaming_state message_not_owned_by_app"
)


@dataclass(frozen=True, slots=True)
class Method:
    """What is documented of a method.

    `rate` is counted per workspace, `channel_rate` per channel. `scopes` is one that is needed, or
    one for each kind of conversation: channel, group, im, mpim. `form_only` methods do not see a
    JSON body. `arguments` and the fields of a good `answer`, both with their types, and `errors`
    are those that the description of 2021 has not.
    """

    rate: Rate
    channel_rate: Rate | None = None
    scopes: tuple[str, ...] = ()
    token: Literal["bot", "app"] = "bot"
    form_only: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=dict)
    errors: Collection[str] = ()

    def missing(self, granted: Collection[str], kind: str | None) -> str:
        """Return the scope that is missing for a conversation of that kind, or "".

        Where the kind is not known one of the scopes is enough.
        """
        needed = self.scopes
        if kind and len(self.scopes) == len(_KINDS):
            needed = (self.scopes[_KINDS.index(kind)],)
        if not needed or any(scope in granted for scope in needed):
            return ""
        return ",".join(needed)


# These say of JSON what the description of 2021 says. Their pages list it by now, but it was
# measured in 2026 that users.info does not see it (kortix-ai/suna pull request 6616).
_READING: dict[str, Method] = {
    **dict.fromkeys(
        ("conversations.history", "conversations.replies"),
        Method(
            TIER_3,
            scopes=_HISTORY,
            form_only=True,
            arguments={"include_all_metadata": "boolean"},
            answer={"response_metadata": "object"},
            errors=_words("invalid_cursor not_in_channel"),
        ),
    ),
    "conversations.info": Method(TIER_3, scopes=_READ, form_only=True),
    "files.info": Method(TIER_4, scopes=("files:read",), form_only=True),
    "users.info": Method(
        TIER_4,
        scopes=("users:read",),
        form_only=True,
        arguments={"include_locale": "boolean"},
    ),
}
_UPLOADS: dict[str, Method] = {
    "files.completeUploadExternal": Method(
        TIER_4,
        scopes=("files:write",),
        arguments=_strings("channel_id initial_comment thread_ts", files="array"),
        answer={"files": "array"},
        errors=_words("channel_not_found file_not_found"),
    ),
    "files.getUploadURLExternal": Method(
        TIER_4,
        scopes=("files:write",),
        arguments=_strings("alt_txt filename snippet_type", length="integer"),
        answer=_strings("file_id upload_url"),
    ),
}
_SIGNS: dict[str, Method] = {
    "agents.sessions.rename": Method(
        TIER_3,
        scopes=_WRITE,
        arguments=_strings("channel_id thread_ts title"),
        answer=_strings("title"),
        errors=_words("channel_not_found session_not_found"),
    ),
    "agents.sessions.setStatus": Method(
        TIER_3,
        scopes=_WRITE,
        arguments=_strings("channel_id thread_ts status"),
        answer=_strings("agent_status status"),
        errors=_words("channel_not_found not_authorized thread_ts_required"),
    ),
    "assistant.threads.setStatus": Method(
        STATUSES,
        scopes=_WRITE,
        arguments=_strings("channel_id thread_ts status"),
        errors=_words("channel_not_found invalid_thread_ts not_in_channel"),
    ),
    "assistant.threads.setSuggestedPrompts": Method(
        TIER_4,
        scopes=("assistant:write",),
        arguments=_strings("channel_id thread_ts title", prompts="array"),
        errors=_words("channel_not_found invalid_thread_ts message_not_found"),
    ),
}
_STREAMS: dict[str, Method] = {
    "chat.appendStream": Method(
        TIER_4,
        scopes=_WRITE,
        arguments=_strings("channel ts", chunks="array"),
        answer=_PLACE,
        errors=_STREAM_ERRORS | _RUNNING_ERRORS | {"stopped_by_user"},
    ),
    # No unfurl switches and no metadata: slack-sdk 3.47 sends none, and Slack has none.
    "chat.startStream": Method(
        TIER_2,
        scopes=_WRITE,
        arguments=_strings(
            "channel recipient_team_id recipient_user_id task_display_mode thread_ts",
            chunks="array",
        ),
        answer=_PLACE,
        errors=_STREAM_ERRORS
        | _words(
            "invalid_thread_ts missing_recipient_team_id missing_recipient_user_id not_in_channel",
            "team_not_found user_not_found",
        ),
    ),
    "chat.stopStream": Method(
        TIER_2,
        scopes=_WRITE,
        arguments=_strings(
            "channel session_status ts", blocks="array", chunks="array", metadata="object"
        ),
        answer={**_PLACE, "message": "message"},
        errors=_STREAM_ERRORS
        | _RUNNING_ERRORS
        | _words("invalid_metadata_format metadata_too_large"),
    ),
}
_VIEW = {"view": "object"}
METHODS: dict[str, Method] = {
    **_READING,
    **_UPLOADS,
    **_SIGNS,
    **_STREAMS,
    "apps.connections.open": Method(TIER_3, token="app", answer=_strings("url")),
    "auth.test": Method(HUNDREDS),
    "chat.delete": Method(TIER_3, scopes=_WRITE),
    "chat.postEphemeral": Method(TIER_4, scopes=_WRITE, errors=_BLOCK_ERRORS | {"not_in_channel"}),
    "chat.postMessage": Method(
        POSTS, CHANNEL, scopes=_WRITE, arguments={"metadata": "object"}, errors=_BLOCK_ERRORS
    ),
    "chat.update": Method(
        TIER_3,
        scopes=_WRITE,
        arguments={"file_ids": "array", "metadata": "object"},
        errors=_BLOCK_ERRORS | {"file_not_found", "streaming_state_conflict"},
    ),
    "oauth.v2.access": Method(
        HUNDREDS,
        errors=_words(
            "bad_client_secret bad_redirect_uri invalid_client_id invalid_code invalid_grant_type",
            "invalid_refresh_token",
        ),
    ),
    "views.open": Method(
        TIER_4,
        arguments=_VIEW,
        answer=_VIEW,
        errors=_BLOCK_ERRORS
        | _words("exchanged_trigger_id expired_trigger_id invalid_trigger_id view_too_large"),
    ),
    "views.publish": Method(TIER_4, arguments=_VIEW, answer=_VIEW, errors=_BLOCK_ERRORS),
    "views.update": Method(
        TIER_4,
        arguments=_VIEW,
        answer=_VIEW,
        errors=_BLOCK_ERRORS | _words("hash_conflict not_found"),
    ),
}
