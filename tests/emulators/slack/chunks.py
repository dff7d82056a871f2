"""What a call may add to a streamed message: chunks of text and blocks."""

from __future__ import annotations

from tests.emulators.slack.arguments import SlackError, decoded, text
from tests.emulators.slack.blocks import BLOCKS, MARKDOWN_CHARACTERS, check_blocks
from tests.emulators.slack.payload import Payload


def addition(args: Payload) -> tuple[Payload, ...]:
    """Return the chunks that a call brings; SlackError when one is refused.

    Slack takes a `markdown_text` in their place, too, and then no chunks for that message.
    """
    if text(args, "markdown_text"):
        raise NotImplementedError("markdown_text is not emulated")
    return tuple(_checked(chunk) for chunk in _listed(args.get("chunks")))


def message_blocks(given: object) -> list[Payload]:
    """Return blocks with their ids; SlackError when they are refused or more than 50."""
    blocks = decoded(given, "invalid_blocks_format")
    if isinstance(blocks, list) and len(blocks) > BLOCKS:
        # docs: chat.stopStream, error msg_blocks_too_many.
        raise SlackError("msg_blocks_too_many")
    return check_blocks(blocks) or []


class Pieces:
    """What a streamed message is made of, in the order in which it came; it only grows.

    Slack renders each run of text as one block.
    """

    def __init__(self, blocks: tuple[Payload, ...] = ()) -> None:
        self.blocks = blocks

    @property
    def text(self) -> str:
        """The text alone, without blocks."""
        return "".join(str(b["text"]) for b in self.blocks if b["type"] == "markdown")

    @property
    def size(self) -> int:
        """What the message's limit counts: UTF-8 bytes (openclaw/openclaw pull request 143882)."""
        return len(self.text.encode())

    def grown(self, chunks: tuple[Payload, ...]) -> Pieces:
        """Return the pieces with chunks added; SlackError when those are too many blocks."""
        pieces = self
        for chunk in chunks:
            pieces = Pieces(_joined(pieces.blocks, chunk))
        if sum("block_id" in block for block in pieces.blocks) > BLOCKS:
            raise SlackError("msg_blocks_too_many")
        return pieces


def _listed(given: object) -> list[Payload]:
    chunks = decoded(given, "invalid_chunks")
    if chunks is None:
        return []
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise SlackError("invalid_chunks")
    return chunks


def _checked(chunk: Payload) -> Payload:
    """Return a chunk as it is kept (docs: chat.appendStream, "Using the chunks parameter")."""
    match chunk:
        case {"type": "plan_update" | "task_update" as kind}:
            raise NotImplementedError(f"{kind} is not emulated")
        case {"type": "markdown_text", "text": str(words)} if words:
            if len(words) > MARKDOWN_CHARACTERS:
                raise SlackError("msg_too_long")
            return chunk
        case {"type": "blocks", "blocks": list(blocks)} if blocks:
            return {"type": "blocks", "blocks": message_blocks(blocks)}
    raise SlackError("invalid_chunks")


def _joined(blocks: tuple[Payload, ...], chunk: Payload) -> tuple[Payload, ...]:
    match chunk:
        case {"type": "blocks", "blocks": list(more)}:
            return (*blocks, *more)
    words = chunk["text"]
    if blocks and blocks[-1]["type"] == "markdown":
        return (*blocks[:-1], {**blocks[-1], "text": f"{blocks[-1]['text']}{words}"})
    return (*blocks, {"type": "markdown", "text": words})
