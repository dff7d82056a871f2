"""The form in which a message is written, and what Discord refuses in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.emulators.discord.objects import Payload

_CONTENT_LIMIT = 2000
_NONCE_LIMIT = 25
_MENTION = re.compile(r"@everyone|@here|<@!?(?P<user>\d+)>|<@&(?P<role>\d+)>")


class Refusal(Exception):
    """An error answer of Discord; `body` is its JSON."""

    def __init__(self, status: int, code: int, text: str, **more: object) -> None:
        super().__init__(text)
        self.status = status
        self.body: Payload = {"message": text, "code": code} | more


def bad_form(key: str, code: str, text: str) -> Refusal:
    """Return the refusal of one field of a form."""
    errors = {key: {"_errors": [{"code": code, "message": text}]}}
    return Refusal(400, 50035, "Invalid Form Body", errors=errors)


@dataclass(frozen=True, slots=True)
class Form:
    """What somebody wants to write; a field that is None stays as it is.

    `allowed_mentions` is Discord's object, or None where the writer left it to the default.
    """

    text: str | None = None
    components: list[object] | None = None
    embeds: list[object] | None = None
    flags: int | None = None
    allowed_mentions: Payload | None = None
    nonce: str | None = None
    enforce_nonce: bool = False
    reply_to: str | None = None
    reply_may_be_gone: bool = False

    @classmethod
    def read(cls, body: Payload, *, flags: int) -> Form:
        """Read what a bot sent; raise Refusal where a text or a nonce is too long.

        Of its flags only those in `flags` count. Discord drops the white space around a text.
        """
        reference = _object(body.get("message_reference")) or {}
        given = body.get("flags")
        form = cls(
            text=str(body["content"] or "").strip() if "content" in body else None,
            components=_array(body, "components"),
            embeds=_array(body, "embeds"),
            flags=given & flags if isinstance(given, int) else None,
            allowed_mentions=_object(body.get("allowed_mentions")),
            nonce=None if body.get("nonce") is None else str(body["nonce"]),
            enforce_nonce=bool(body.get("enforce_nonce")),
            reply_to=str(reference["message_id"]) if "message_id" in reference else None,
            reply_may_be_gone=reference.get("fail_if_not_exists") is False,
        )
        if form.text and len(form.text) > _CONTENT_LIMIT:
            raise bad_form("content", "BASE_TYPE_MAX_LENGTH", "Must be 2000 or fewer in length.")
        if form.nonce and len(form.nonce) > _NONCE_LIMIT:
            raise bad_form("nonce", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
        return form

    @property
    def pings_replied(self) -> bool:
        """Whether a reply tells the author of what it answers."""
        return self.allowed_mentions is None or bool(self.allowed_mentions.get("replied_user"))

    def pings(self) -> list[str]:
        """Return the mentions in the text that `allowed_mentions` does not forbid."""
        found = _MENTION.finditer(self.text or "")
        return [match.group() for match in found if self._may_ping(match)]

    def _may_ping(self, match: re.Match[str]) -> bool:
        allowed = self.allowed_mentions
        if allowed is None:
            return True
        for kind in ("user", "role"):
            if match[kind]:
                return f"{kind}s" in _ids(allowed, "parse") or match[kind] in _ids(
                    allowed, f"{kind}s"
                )
        return "everyone" in _ids(allowed, "parse")


def mentioned(text: str) -> Iterator[str]:
    """Yield the ids of the users whom a text mentions."""
    for match in _MENTION.finditer(text):
        if match["user"]:
            yield match["user"]


def _ids(body: Payload, key: str) -> list[str]:
    return [str(one) for one in _array(body, key) or []]


def _array(body: Payload, key: str) -> list[object] | None:
    if key not in body:
        return None
    value = body[key]
    return value if isinstance(value, list) else []


def _object(value: object) -> Payload | None:
    return value if isinstance(value, dict) else None
