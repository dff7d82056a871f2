"""The Slack app manifest: commands, shortcuts, events and scopes, with reasons.

The handlers use the same names, so a manifest always fits the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from bot.commands.handlers import ASK_ABOUT, COMMANDS, SUMMARISE
from bot.languages import later

ASK, PARLEY = "/ask", "/parley"
ASKED_EVENT = "parley_asked"  # of the metadata of a question that the bot has posted for a person
# The callback ids of the message shortcuts, and of the modals.
SHORTCUTS = ASK_ABOUT_ID, SUMMARISE_ID = "ask_about", "summarise"
VIEWS = FORM_ID, MODEL_ID, PERSONA_ID, QUESTION_ID, ANSWER_ID = (
    "form",
    "model",
    "persona",
    "question",
    "answer",
)

# The keys are in the order of the alphabet, as in the file.
SCOPES: Mapping[str, str] = {
    "app_mentions:read": "being asked in channels",
    "assistant:write": "agent_view needs it; suggested prompts",
    "channels:history": "follow-ups without a mention; what was said before; a reply after a crash",
    "channels:read": "what public channels are called, and who may choose for one: its creator",
    "chat:write": "replies, the line that says I am thinking, the title of a conversation",
    "commands": f"{ASK}, {PARLEY} and the shortcuts in the menu of a message",
    "files:read": "files that come with a question, or with what was said before",
    "files:write": "long code and wide tables of an answer, as files beside it",
    "groups:history": "as channels:history, in private channels",
    "groups:read": "as channels:read, for private channels",
    "im:history": "being asked in direct messages",
    "mpim:history": "as channels:history, in group messages",
    "users:read": "what people are called, their time zone and language, who is an admin",
}
# The effect of a missing scope, for help. Only these may be left out; all answers need the others.
WITHOUT: Mapping[str, str] = {
    "channels:history": later(
        "In public channels I only see messages that mention me, and I cannot read what was said "
        "before."
    ),
    "channels:read": later(
        "I cannot tell who created a public channel, so only admins can choose for it."
    ),
    "files:read": later("I cannot read files."),
    "files:write": later("I cannot give long code and wide tables as files."),
    "groups:history": later(
        "In private channels I only see messages that mention me, and I cannot read what was said "
        "before."
    ),
    "groups:read": later(
        "I cannot tell who created a private channel, so only admins can choose for it."
    ),
    "mpim:history": later(
        "In group messages I only see messages that mention me, and I cannot read what was said "
        "before."
    ),
    "users:read": later("I do not know what people are called, nor who is an admin."),
}
EVENTS: Mapping[str, str] = {
    "agent_session_stopped": "Slack's own Stop",
    "app_home_opened": "the Home tab, and suggested prompts in the Messages tab",
    "app_mention": "questions in channels",
    "app_uninstalled": "the workspace is forgotten within a day, and its token at once",
    "message.channels": "follow-ups, edits and deletions in public channels",
    "message.groups": "the same in private channels",
    "message.im": "questions in direct messages",
    "message.mpim": "follow-ups, edits and deletions in group messages",
    "tokens_revoked": "the same",
}
# Titles and messages; docs: assistant.threads.setSuggestedPrompts, "up to four".
PROMPTS: Sequence[tuple[str, str]] = (
    (
        later("Explain something"),
        later("Explain how a bicycle stays upright, in three sentences."),
    ),
    (
        later("Write something"),
        later("Write a friendly reminder that the meeting has moved to Thursday."),
    ),
)
_HEAD = """\
# The app as Slack knows it: api.slack.com/apps, "Create New App", "From a manifest".
# Written by `python -m bot manifest`; with `--http https://YOUR-HOST` for events over HTTP.
"""

Node = str | bool | int | Mapping[str, "Node"] | Sequence["Node"]


def manifest(
    *, base_url: str = "", prompts: Sequence[tuple[str, str]] = (), redirect_url: str = ""
) -> dict[str, Node]:
    """Return the manifest, for Socket Mode or for the server at `base_url` (docs: App manifest).

    With a `redirect_url` several workspaces, or an organization, install the app.
    """
    redirect: dict[str, Node] = {"redirect_urls": [redirect_url]} if redirect_url else {}
    url = {"url": f"{base_url.rstrip('/')}/slack/events"} if base_url else {}
    request = {"request_url": url["url"]} if url else {}
    commands = [
        {
            "command": ASK,
            "description": "Ask a question here",
            "usage_hint": "why is the sky blue?",
        },
        {
            "command": PARLEY,
            "description": "Look after conversations, choose a model, get help",
            "usage_hint": " | ".join(COMMANDS),
        },
    ]
    shortcuts = [
        (ASK_ABOUT, ASK_ABOUT_ID, "Ask a question about this message"),
        (SUMMARISE, SUMMARISE_ID, "Summarise what was said from this message on"),
    ]
    suggested = [{"title": title, "message": message} for title, message in prompts or PROMPTS]
    return {
        "_metadata": {"major_version": 2, "minor_version": 1},
        "display_information": {
            "name": "Parley",
            "description": f"Answers questions in threads, in direct messages and with {ASK}.",
        },
        "features": {
            "app_home": {
                "home_tab_enabled": True,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "agent_view": {
                "agent_description": "Answers questions with a language model, where it is asked.",
                "suggested_prompts": suggested,
            },
            "bot_user": {"display_name": "Parley", "always_online": True},
            "shortcuts": [
                {"name": name, "type": "message", "callback_id": id_, "description": description}
                for name, id_, description in shortcuts
            ],
            "slash_commands": [{**one, **url, "should_escape": True} for one in commands],
        },
        "oauth_config": {**redirect, "scopes": {"bot": [*SCOPES]}},
        "settings": {
            "event_subscriptions": {**request, "bot_events": [*EVENTS]},
            "interactivity": {"is_enabled": True, **request},
            "org_deploy_enabled": bool(redirect),
            "socket_mode_enabled": not base_url,
            "token_rotation_enabled": bool(redirect),
        },
    }


def as_yaml(node: Mapping[str, Node]) -> str:
    """Return a manifest as YAML, each scope and event with its reason."""
    return _HEAD + "\n".join(_lines(node)) + "\n"


def _lines(node: Node, *, name: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if isinstance(value, Mapping | list):
                yield f"{key}:"
                yield from (f"  {line}" for line in _lines(value, name=key))
            else:
                yield f"{key}: {_scalar(value)}"
    elif isinstance(node, Sequence) and not isinstance(node, str):
        reasons = {"bot": SCOPES, "bot_events": EVENTS}.get(name, {})
        for item in node:
            first, *others = _lines(item) if isinstance(item, Mapping) else [_scalar(item)]
            reason = reasons.get(item) if isinstance(item, str) else None
            yield f"- {first}" + (f" # {reason}" if reason else "")
            yield from (f"  {line}" for line in others)


def _scalar(value: Node) -> str:
    return json.dumps(value, ensure_ascii=False)  # each JSON value is valid YAML
