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

# What an app that chats asks for, when it is installed.
SCOPES = frozenset(
    {
        "app_mentions:read",
        "assistant:write",
        "channels:history",
        "channels:read",
        "chat:write",
        "commands",
        "files:read",
        "groups:history",
        "groups:read",
        "im:history",
        "mpim:history",
        "users:read",
    }
)
# docs: "Errors" that every method's page lists.
COMMON_ERRORS = frozenset(
    {
        "account_inactive",
        "fatal_error",
        "internal_error",
        "invalid_arguments",
        "invalid_auth",
        "invalid_form_data",
        "invalid_json",
        "invalid_post_type",
        "json_not_object",
        "missing_post_type",
        "missing_scope",
        "not_allowed_token_type",
        "not_authed",
        "ratelimited",
        "token_expired",
        "token_revoked",
    }
)

_KINDS = ("channel", "group", "im", "mpim")
_HISTORY = ("channels:history", "groups:history", "im:history", "mpim:history")
_READ = ("channels:read", "groups:read", "im:read", "mpim:read")
_ADDED = {"chunks": "array"}
_PLACE = {"channel": "string", "ts": "string"}
_BLOCK_ERRORS = frozenset(
    {
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_metadata_format",
        "invalid_metadata_schema",
        "metadata_too_large",
        "msg_blocks_too_long",
    }
)

# docs: "Errors" of the three methods of streams; the first and the last of these and msg_too_long
# are not in them, but are what Slack answers (see chunks.py and streams.py).
_STREAM_ERRORS = frozenset(
    {
        "channel_not_found",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_chunks",
        "invalid_metadata_schema",
        "msg_blocks_too_long",
        "msg_blocks_too_many",
        "msg_too_long",
        "no_text",
    }
)
_RUNNING_ERRORS = frozenset(
    {"message_not_found", "message_not_in_streaming_state", "message_not_owned_by_app"}
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


METHODS: dict[str, Method] = {
    "agents.sessions.rename": Method(
        rate=TIER_3,
        scopes=("chat:write",),
        arguments={"channel_id": "string", "thread_ts": "string", "title": "string"},
        answer={"title": "string"},
        errors={"channel_not_found", "session_not_found"},
    ),
    "agents.sessions.setStatus": Method(
        rate=TIER_3,
        scopes=("chat:write",),
        arguments={
            "channel_id": "string",
            "thread_ts": "string",
            "status": "string",
        },
        answer={"agent_status": "string", "status": "string"},
        errors={"channel_not_found", "not_authorized", "thread_ts_required"},
    ),
    "apps.connections.open": Method(rate=TIER_3, token="app", answer={"url": "string"}),
    "assistant.threads.setStatus": Method(
        rate=STATUSES,
        scopes=("chat:write",),
        arguments={
            "channel_id": "string",
            "thread_ts": "string",
            "status": "string",
        },
        errors={"channel_not_found", "invalid_thread_ts", "not_in_channel"},
    ),
    "assistant.threads.setSuggestedPrompts": Method(
        rate=TIER_4,
        scopes=("assistant:write",),
        arguments={
            "channel_id": "string",
            "prompts": "array",
            "thread_ts": "string",
            "title": "string",
        },
        errors={"channel_not_found", "invalid_thread_ts", "message_not_found"},
    ),
    "auth.test": Method(rate=HUNDREDS),
    "chat.appendStream": Method(
        rate=TIER_4,
        scopes=("chat:write",),
        arguments={"channel": "string", "ts": "string", **_ADDED},
        answer=_PLACE,
        errors={*_STREAM_ERRORS, *_RUNNING_ERRORS, "stopped_by_user"},
    ),
    "chat.delete": Method(rate=TIER_3, scopes=("chat:write",)),
    "chat.postEphemeral": Method(
        rate=TIER_4,
        scopes=("chat:write",),
        errors={*_BLOCK_ERRORS, "not_in_channel"},
    ),
    "chat.postMessage": Method(
        rate=POSTS,
        channel_rate=CHANNEL,
        scopes=("chat:write",),
        arguments={"metadata": "object"},
        errors=_BLOCK_ERRORS,
    ),
    # No unfurl switches and no metadata: slack-sdk 3.47 sends none, and Slack has none.
    "chat.startStream": Method(
        rate=TIER_2,
        scopes=("chat:write",),
        arguments={
            "channel": "string",
            "recipient_team_id": "string",
            "recipient_user_id": "string",
            "thread_ts": "string",
            **_ADDED,
        },
        answer=_PLACE,
        errors={
            *_STREAM_ERRORS,
            "invalid_thread_ts",
            "missing_recipient_team_id",
            "missing_recipient_user_id",
            "not_in_channel",
            "team_not_found",
            "user_not_found",
        },
    ),
    "chat.stopStream": Method(
        rate=TIER_2,
        scopes=("chat:write",),
        arguments={
            "blocks": "array",
            "channel": "string",
            "metadata": "object",
            "session_status": "string",
            "ts": "string",
            **_ADDED,
        },
        answer={**_PLACE, "message": "message"},
        errors={*_STREAM_ERRORS, *_RUNNING_ERRORS, "invalid_metadata_format", "metadata_too_large"},
    ),
    "chat.update": Method(
        rate=TIER_3,
        scopes=("chat:write",),
        arguments={"metadata": "object"},
        errors={*_BLOCK_ERRORS, "streaming_state_conflict"},
    ),
    # These four say of JSON what the description of 2021 says. Their pages list it by now, but it
    # was measured in 2026 that users.info does not see it (kortix-ai/suna pull request 6616).
    "conversations.history": Method(
        rate=TIER_3,
        scopes=_HISTORY,
        form_only=True,
        arguments={"include_all_metadata": "boolean"},
        answer={"response_metadata": "object"},
        errors={"invalid_cursor", "not_in_channel"},
    ),
    "conversations.info": Method(rate=TIER_3, scopes=_READ, form_only=True),
    "conversations.replies": Method(
        rate=TIER_3,
        scopes=_HISTORY,
        form_only=True,
        arguments={"include_all_metadata": "boolean"},
        answer={"response_metadata": "object"},
        errors={"invalid_cursor", "not_in_channel"},
    ),
    "users.info": Method(rate=TIER_4, scopes=("users:read",), form_only=True),
    "views.open": Method(
        rate=TIER_4,
        arguments={"view": "object"},
        answer={"view": "object"},
        errors={
            *_BLOCK_ERRORS,
            "duplicate_external_id",
            "exchanged_trigger_id",
            "expired_trigger_id",
            "invalid_trigger_id",
            "view_too_large",
        },
    ),
    "views.publish": Method(
        rate=TIER_4,
        arguments={"view": "object"},
        answer={"view": "object"},
        errors={*_BLOCK_ERRORS, "duplicate_external_id", "hash_conflict", "not_enabled"},
    ),
    "views.update": Method(
        rate=TIER_4,
        arguments={"view": "object"},
        answer={"view": "object"},
        errors={*_BLOCK_ERRORS, "duplicate_external_id", "hash_conflict", "not_found"},
    ),
}
