"""Slack's markup to plain text, and the model's Markdown to Slack.

A reply is sent twice over. `text` feeds notifications, search and clients without blocks: it is
mrkdwn and has all of `& < >` as entities. What people see is a `markdown` block, in which Slack
still reads `<!channel>`, `<@U…>` and `<url|label>`, shows entities as their characters without
reading them again, and leaves `&` alone inside a link's address (field report: PostHog/posthog,
pull request 95054). So there `<` is always an entity, and `&` only where it would spell one, except
in an address. `>` opens nothing alone, and quotes need it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bot.text.inline_markdown import ADDRESS
from bot.text.sanitize import unescape

_TOKEN = re.compile(r"<([^<>]+)>")
# The longest name that HTML has is 31 characters; leading zeros may make a number longer than that.
_ENTITY = r"#?[0-9A-Za-z]{1,32}"
_SPELT_ENTITY = re.compile(rf"&(?={_ENTITY};|#?[0-9A-Za-z]{{33}})")
# The beginning of an entity, which the next delta may finish.
_ENTITY_BEGUN = re.compile(rf"&(?:#|{_ENTITY})?\Z")
# What becomes a link: an address in quotes, tags or backticks is code.
_LINKED = re.compile(rf"((?:(?<=[\s(*_])|^){ADDRESS})")
_SCHEME = re.compile(r"^(https?://|mailto:|tel:)")


def markdown_block(text: str) -> dict[str, str]:
    """Return the block that shows Markdown, in which nothing pings."""
    pieces = _LINKED.split(text)
    pieces[::2] = [_SPELT_ENTITY.sub("&amp;", piece) for piece in pieces[::2]]
    return {"type": "markdown", "text": "".join(pieces).replace("<", "&lt;")}


def without_half_entity(text: str) -> str:
    """Return a text that still grows without the entity at its end, which may be half of one."""
    return _ENTITY_BEGUN.sub("", text)


def mentioned(text: str) -> list[str]:
    """Return the ids of the people that a message names, each once."""
    ids = (_person(token) for token in _TOKEN.findall(text))
    return list(dict.fromkeys(user for user in ids if user))


def channels_in(text: str) -> list[str]:
    """Return the ids of the channels that a message names without telling their names."""
    tokens = (token.partition("|") for token in _TOKEN.findall(text))
    ids = (target[1:] for target, _, label in tokens if target.startswith("#") and not label)
    return list(dict.fromkeys(ids))


def readable(text: str, *, bot: str, names: Mapping[str, str]) -> str:
    """Return a message as its author typed it, without mentions of the user `bot`.

    `names` has the names of the people and channels mentioned; the id stands for one that is
    missing.
    """
    said = re.sub(rf"<@{bot}(\|[^<>]*)?>[,:]?[ \t]?", "", text)
    plain = _TOKEN.sub(lambda match: _plain(match[1], names), said)
    return unescape(plain).strip()


def _plain(token: str, names: Mapping[str, str]) -> str:
    if user := _person(token):
        return f"@{names.get(user, user)}"
    target, _, label = token.partition("|")
    if target.startswith("#"):
        return f"#{label or names.get(target[1:], target[1:])}"
    if target.startswith("!"):
        return _special(target[1:], label)
    if not label or label == _SCHEME.sub("", target):
        return label or target
    return f"{label} ({target})"


def _special(command: str, label: str) -> str:
    # `<!date^…|fallback>` has the date as words, `<!subteam^S1|@team>` the group with its sign.
    if "^" in command and label:
        return label
    return f"@{command.removeprefix('subteam^')}"


def _person(token: str) -> str:
    return token.partition("|")[0][1:] if token.startswith("@") else ""
