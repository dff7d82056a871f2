"""The form in which a message is written, and what Discord refuses in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.discord import components, mentions
from tests.emulators.discord.cdn import Upload
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import Request, bad_length

_CONTENT_LIMIT = 2000  # docs: Create Message; the OpenAPI document says 4000
_NONCE_LIMIT = 25


@dataclass(frozen=True, slots=True)
class Form:
    """What somebody wants to write; a field that is None stays as it is.

    `allowed_mentions` is what holds; `guarded` says whether the writer chose it, or left it to the
    default.
    """

    text: str | None = None
    components: list[object] | None = None
    embeds: list[object] | None = None
    flags: int | None = None
    allowed_mentions: Payload = field(default_factory=lambda: mentions.BY_DEFAULT)
    guarded: bool = False
    nonce: str | None = None
    enforce_nonce: bool = False
    reply_to: str | None = None
    reply_may_be_gone: bool = False
    files: tuple[Upload, ...] = ()
    kept: tuple[str, ...] | None = None  # the ids of the files that stay; all, if it is None

    @classmethod
    def read(cls, request: Request, *, flags: int, default: Payload = mentions.BY_DEFAULT) -> Form:
        """Read what a bot sent; raise Refusal where Discord would.

        Of its flags only those in `flags` count. Discord drops the white space around a text.
        """
        return cls.of(request.body, request.files, flags=flags, default=default)

    @classmethod
    def of(
        cls,
        body: Payload,
        files: Mapping[str, tuple[str, bytes]],
        *,
        flags: int,
        default: Payload = mentions.BY_DEFAULT,
    ) -> Form:
        """Read the JSON and the files of a message."""
        reference = _object(body.get("message_reference")) or {}
        allowed = _object(body.get("allowed_mentions"))
        given = body.get("flags")
        rows = _array(body, "components")
        form = cls(
            text=str(body["content"] or "").strip() if "content" in body else None,
            components=None if rows is None else components.accepted(rows),
            embeds=_array(body, "embeds"),
            flags=given & flags if isinstance(given, int) else None,
            allowed_mentions=default if allowed is None else allowed,
            guarded=allowed is not None,
            nonce=None if body.get("nonce") is None else str(body["nonce"]),
            enforce_nonce=bool(body.get("enforce_nonce")),
            reply_to=str(reference["message_id"]) if "message_id" in reference else None,
            reply_may_be_gone=reference.get("fail_if_not_exists") is False,
            **_attached(_array(body, "attachments"), files),
        )
        form.check()
        return form

    def check(self) -> None:
        """Raise Refusal where a text or a nonce is too long, or a mention cannot be allowed."""
        if self.text and len(self.text) > _CONTENT_LIMIT:
            raise bad_length("content", 0, _CONTENT_LIMIT)
        if self.nonce and len(self.nonce) > _NONCE_LIMIT:
            raise bad_length("nonce", 0, _NONCE_LIMIT)
        mentions.check(self.allowed_mentions)

    @property
    def pings_replied(self) -> bool:
        """Whether a reply tells the author of what it answers."""
        return not self.guarded or bool(self.allowed_mentions.get("replied_user"))

    def pings(self) -> list[str]:
        """Return the mentions in the text that call somebody."""
        return mentions.pings(self.text or "", self.allowed_mentions)


def _attached(
    listed: list[object] | None, files: Mapping[str, tuple[str, bytes]]
) -> dict[str, Any]:
    """Return the new files of a message and those that stay.

    Each new one is listed by the number of its part (docs: Uploading Files, Editing Message
    Attachments).
    """
    ids = None if listed is None else [str(one["id"]) for one in listed if isinstance(one, dict)]
    new = {name.removeprefix("files[").removesuffix("]"): file for name, file in files.items()}
    unknown = [number for number in new if number not in (ids or ())]
    if unknown:
        raise NotImplementedError(f"files that are not listed: {unknown}")
    kept = None if ids is None else tuple(one for one in ids if one not in new)
    return {"files": tuple(new.values()), "kept": kept}


def _array(body: Payload, key: str) -> list[object] | None:
    if key not in body:
        return None
    value = body[key]
    return value if isinstance(value, list) else []


def _object(value: object) -> Payload | None:
    return value if isinstance(value, dict) else None
