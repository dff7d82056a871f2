"""What a call has to say: a text, blocks and metadata, within Slack's limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.emulators.slack.arguments import SlackError, decoded, text
from tests.emulators.slack.blocks import check_blocks
from tests.emulators.slack.payload import Payload

# docs: chat.update, error msg_too_long; in bytes of the escaped text.
UPDATE_BYTES = 4000
# docs: chat.postMessage, "Truncating content".
POST_CHARACTERS = 40_000
# slackapi/java-slack-sdk issue 704: a longer text without blocks becomes several messages.
SPLIT_CHARACTERS = 4000
_UNESCAPED = re.compile(r"&(?!amp;|lt;|gt;)|<(?![@#!]|https?://|mailto:)")


@dataclass(frozen=True, slots=True)
class Content:
    """The words and blocks of a message; None where none are named, or no metadata is."""

    text: str
    blocks: list[Payload] | None
    metadata: Payload | None

    @property
    def size(self) -> int:
        """The bytes of the text as Slack stores it: what is no markup and not escaped yet, is."""
        escaped = _UNESCAPED.sub(lambda m: "&amp;" if m[0] == "&" else "&lt;", self.text)
        return len(escaped.encode())


def content(args: Payload) -> Content:
    """Return what is to be said; SlackError when it is nothing, too long or malformed."""
    words, blocks = text(args, "text"), check_blocks(args.get("blocks"))
    if not (words.strip() or blocks):
        raise SlackError("no_text")
    return Content(words, blocks, metadata(args))


def metadata(args: Payload) -> Payload | None:
    """Return the metadata, None when none is given; SlackError when it is malformed.

    docs: Message metadata: an event_type, and an event_payload that is an object.
    """
    given = decoded(args.get("metadata"), "invalid_metadata_format")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise SlackError("invalid_metadata_format")
    kind, payload = given.get("event_type"), given.get("event_payload")
    if given and not (isinstance(kind, str) and kind and isinstance(payload, dict)):
        raise SlackError("invalid_metadata_schema")
    return given
