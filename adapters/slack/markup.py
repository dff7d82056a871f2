"""Converts Slack's markup to plain text, and the model's Markdown to Slack's blocks.

A reply is sent in two forms. `text` is for notifications, search and clients without blocks: it is
mrkdwn, with each of `& < >` as an entity. People see a `markdown` block. In it Slack still parses
`<!channel>`, `<@U…>` and `<url|label>`, decodes entities once, and leaves `&` alone inside the
address of a link (field report: PostHog/posthog, pull request 95054). So in the block `<` is always
an entity, and `&` only if it would begin one, except in an address. `>` alone is harmless, and
quotes need it. Simple formulas are text and others code, because Slack draws none; what is only a
part of one is escaped: Slack says that the block is standard Markdown, in which `\\(` reads `(`.
Guess: its parser follows CommonMark there; nobody has reported it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from bot.text.markdown import ADDRESS, draw_signs
from bot.text.sanitize import is_visible, unescape

_TOKEN = re.compile(r"<([^<>]+)>")
# The longest name in HTML has 31 characters; a number with leading zeros may be longer.
_ENTITY = r"#?[0-9A-Za-z]{1,32}"
_LITERAL_ENTITY = re.compile(rf"&(?={_ENTITY};|#?[0-9A-Za-z]{{33}})")
# The next delta may complete it.
_PARTIAL_ENTITY = re.compile(rf"&(?:#|{_ENTITY})?\Z")
# Slack links these; an address in quotes, tags or backticks is code.
_LINKED = re.compile(rf"((?:(?<=[\s(*_])|^){ADDRESS})")
_SCHEME = re.compile(r"^(https?://|mailto:|tel:)")


def markdown_block(text: str) -> dict[str, str]:
    """Return the block that shows Markdown, simple formulas as text, and pings nobody."""
    pieces = _LINKED.split(draw_signs(text))
    pieces[::2] = [_LITERAL_ENTITY.sub("&amp;", piece) for piece in pieces[::2]]
    return {"type": "markdown", "text": "".join(pieces).replace("<", "&lt;")}


def without_partial_entity(text: str) -> str:
    """Return a growing text without the entity at its end, which may be incomplete."""
    return _PARTIAL_ENTITY.sub("", text)


def mentioned(text: str, sign: Literal["@", "#"]) -> list[str]:
    """Return the ids of the people, or of the channels without a label, each once."""
    tokens = (token.partition("|") for token in _TOKEN.findall(text))
    ids = (
        target[1:]
        for target, _, label in tokens
        if target.startswith(sign) and (sign == "@" or not label)
    )
    return list(dict.fromkeys(filter(None, ids)))


def readable(text: str, *, bot: str, names: Mapping[str, str]) -> str:
    """Return a message as its author typed it, without mentions of the user `bot`.

    `names` has the names of the people and channels, or their ids. A person whose name is unknown
    is somebody. A message without a character that can be seen is empty.
    """
    typed = re.sub(rf"<@{bot}(\|[^<>]*)?>[,:]?[ \t]?", "", text)
    plain = _TOKEN.sub(lambda match: _plain(match[1], names), typed)
    shown = unescape(plain).strip()
    return shown if is_visible(shown) else ""


def _plain(token: str, names: Mapping[str, str]) -> str:
    target, _, label = token.partition("|")
    sign, id_ = target[:1], target[1:]
    if sign == "@":
        name = names.get(id_)
        return f"@{name if name and name != id_ else 'somebody'}"
    if sign == "#":
        return f"#{label or names.get(id_) or id_}"
    if sign == "!":
        # The label of `<!date^…|label>` is the date in words, of `<!subteam^S1|@team>` the group.
        return label if label and "^" in id_ else f"@{id_.removeprefix('subteam^')}"
    if not label or label == _SCHEME.sub("", target):
        return label or target
    return f"{label} ({target})"
