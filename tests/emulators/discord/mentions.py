"""Whom a text calls, and whom its writer allowed to be called (docs: Allowed Mentions Object)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import bad_form, bad_length

# docs: Allowed Mentions Object, "Default Values": interactions and webhooks call only users.
BY_DEFAULT: Payload = {"parse": ["users", "roles", "everyone"]}
BY_DEFAULT_OF_WEBHOOKS: Payload = {"parse": ["users"]}

_MOST = 100
_MENTION = re.compile(r"@everyone|@here|<@!?(?P<user>\d+)>|<@&(?P<role>\d+)>")
# Code calls nobody: a block, or a span with as many backticks at its end. A backtick behind a
# backslash is an ordinary character, and so is a fence that nothing closes.
_CODE = re.compile(
    r"\\`|```(?:[\w+\-.#]+\n)?\n*[^\n].*?```|(?<!`)(?P<ticks>`+)(?!`).*?[^`](?P=ticks)(?!`)",
    re.DOTALL,
)


def check(allowed: Payload) -> None:
    """Raise Refusal where an `allowed_mentions` contradicts itself, or names too many."""
    for kind in ("users", "roles"):
        if len(_ids(allowed, kind)) > _MOST:
            raise bad_length(f"allowed_mentions.{kind}", 0, _MOST)
        if _ids(allowed, kind) and kind in _ids(allowed, "parse"):
            text = f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.'
            raise bad_form("allowed_mentions", "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", text)


def pings(text: str, allowed: Payload) -> list[str]:
    """Return the mentions in a text that call somebody."""
    return [match.group() for match in _mentions(text) if _may_ping(match, allowed)]


def users(text: str) -> Iterator[str]:
    """Yield the ids of the users whom a text mentions, each once."""
    yield from _ids_of("user", text)


def roles(text: str) -> Iterator[str]:
    """Yield the ids of the roles that a text mentions, each once."""
    yield from _ids_of("role", text)


def _ids_of(kind: str, text: str) -> Iterator[str]:
    found = (match[kind] for match in _mentions(text))
    yield from dict.fromkeys(one for one in found if one)


def _mentions(text: str) -> Iterator[re.Match[str]]:
    """Yield the mentions; those in code are none."""
    yield from _MENTION.finditer(_CODE.sub("`", text))


def _may_ping(match: re.Match[str], allowed: Payload) -> bool:
    for kind in ("user", "role"):
        if match[kind]:
            named = match[kind] in _ids(allowed, f"{kind}s")
            return named or f"{kind}s" in _ids(allowed, "parse")
    return "everyone" in _ids(allowed, "parse")


def _ids(allowed: Payload, key: str) -> list[str]:
    found = allowed.get(key)
    return [str(one) for one in found] if isinstance(found, list) else []
