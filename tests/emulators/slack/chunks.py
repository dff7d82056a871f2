"""What a call may add to a streamed message: a text, or chunks of text, tasks and blocks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from tests.emulators.slack.arguments import SlackError, text
from tests.emulators.slack.block_shapes import BLOCKS
from tests.emulators.slack.blocks import check_blocks
from tests.emulators.slack.payload import Payload

Mode = Literal["markdown_text", "chunks"]

# docs: chat.startStream, argument markdown_text; chat.appendStream, "markdown_text chunks".
TEXT_CHARACTERS = 12_000
# docs: chat.appendStream, "task_update chunks" and "plan_update chunks".
TASK_CHARACTERS = 256
# docs: chat.appendStream has the last three; `pending` is slack-sdk's (models/messages/chunk.py).
TASK_STATES = ("pending", "in_progress", "complete", "error")


@dataclass(frozen=True, slots=True)
class Addition:
    """What one call brings; a text is one chunk of `mode` markdown_text, nothing has no mode."""

    mode: Mode | None
    chunks: tuple[Payload, ...] = ()


def addition(args: Payload) -> Addition:
    """Return what a call brings, nothing where it brings none; SlackError when it is refused."""
    markdown, chunks = text(args, "markdown_text"), _listed(args.get("chunks"))
    if markdown and chunks:
        # Undocumented, but what Slack answers: NousResearch/hermes-agent pull request 104173.
        raise SlackError("cannot_provide_both_markdown_text_and_chunks")
    if markdown:
        return Addition("markdown_text", (_checked({"type": "markdown_text", "text": markdown}),))
    return Addition("chunks" if chunks else None, tuple(_checked(chunk) for chunk in chunks))


def message_blocks(given: object) -> list[Payload]:
    """Return blocks with their ids; SlackError when they are refused or more than 50."""
    blocks = _decoded(given, "invalid_blocks_format")
    if isinstance(blocks, list) and len(blocks) > BLOCKS:
        # docs: chat.stopStream, error msg_blocks_too_many.
        raise SlackError("msg_blocks_too_many")
    return check_blocks(blocks) or []


class Pieces:
    """What a streamed message is made of, in the order in which it came; it only grows.

    Slack renders each run of text as one block and each task as one card.
    """

    def __init__(self, blocks: tuple[Payload, ...] = ()) -> None:
        self.blocks = blocks

    @property
    def text(self) -> str:
        """The text alone, without tasks and blocks."""
        return "".join(str(b["text"]) for b in self.blocks if b["type"] == "markdown")

    @property
    def size(self) -> int:
        """What the message's limit counts.

        UTF-8 bytes of texts and titles, those of a task's details and output twice: measured in
        openclaw/openclaw pull request 143882.
        """
        return sum(_size(block) for block in self.blocks)

    def grown(self, chunks: tuple[Payload, ...]) -> Pieces:
        """Return the pieces with chunks added; SlackError when those are too many blocks."""
        pieces = self
        for chunk in chunks:
            pieces = Pieces(_joined(pieces.blocks, chunk))
        if sum("block_id" in block for block in pieces.blocks) > BLOCKS:
            raise SlackError("msg_blocks_too_many")
        return pieces

    def ended(self) -> Pieces:
        """Return the pieces as a stop leaves them: tasks under way have failed.

        agentconnect-md/agentconnect, native streaming, "Live-verified platform facts", 3.
        """
        failed = ({**b, "status": "error"} if _is_open(b) else b for b in self.blocks)
        return Pieces(tuple(failed))


def _listed(given: object) -> list[Payload]:
    chunks = _decoded(given, "invalid_chunks")
    if chunks is None:
        return []
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise SlackError("invalid_chunks")
    return chunks


def _decoded(given: object, refusal: str) -> object:
    """Return an argument that may be JSON, encoded or not."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        raise SlackError(refusal) from None


def _checked(chunk: Payload) -> Payload:
    """Return a chunk as it is kept (docs: chat.appendStream, "Using the chunks parameter")."""
    match chunk:
        case {"type": "markdown_text", "text": str(words)} if words:
            if len(words) > TEXT_CHARACTERS:
                raise SlackError("msg_too_long")
            return chunk
        case {"type": "plan_update", "title": str(title)} if _fits(title):
            return chunk
        case {"type": "task_update", "id": str(name), "title": str(title), "status": str(status)}:
            long = [chunk.get(key) or "" for key in ("details", "output")]
            if name and _fits(title) and status in TASK_STATES and all(map(_short, long)):
                return chunk
        case {"type": "blocks", "blocks": list(blocks)} if blocks:
            return {"type": "blocks", "blocks": message_blocks(blocks)}
    raise SlackError("invalid_chunks")


def _joined(blocks: tuple[Payload, ...], chunk: Payload) -> tuple[Payload, ...]:
    match chunk:
        case {"type": "markdown_text", "text": words}:
            if blocks and blocks[-1]["type"] == "markdown":
                return (*blocks[:-1], {**blocks[-1], "text": f"{blocks[-1]['text']}{words}"})
            return (*blocks, {"type": "markdown", "text": words})
        case {"type": "task_update", "id": name}:
            return _replaced(blocks, {**chunk, "type": "task_card", "task_id": name})
        case {"type": "plan_update", "title": title}:
            return _replaced(blocks, {"type": "plan", "title": title})
        case {"type": "blocks", "blocks": list(more)}:
            return (*blocks, *more)
    return blocks


def _replaced(blocks: tuple[Payload, ...], card: Payload) -> tuple[Payload, ...]:
    """Put a task's card, or the plan's title, where it stands already, or last."""
    is_same = (
        (block["type"], block.get("task_id")) == (card["type"], card.get("task_id"))
        for block in blocks
    )
    place = next((number for number, same in enumerate(is_same) if same), len(blocks))
    old = blocks[place] if place < len(blocks) else {}
    return (*blocks[:place], {**card, **_lengthened(old, card)}, *blocks[place + 1 :])


def _lengthened(old: Payload, card: Payload) -> Payload:
    """Return what is added to, where title and status are replaced (agentconnect, as above)."""
    fields = (field for field in ("details", "output") if old.get(field) or card.get(field))
    return {field: f"{old.get(field) or ''}{card.get(field) or ''}" for field in fields}


def _size(block: Payload) -> int:
    if block["type"] == "markdown":
        return len(str(block["text"]).encode())
    words = [block.get("title"), *[block.get("details"), block.get("output")] * 2]
    return sum(len(word.encode()) for word in words if isinstance(word, str))


def _is_open(block: Payload) -> bool:
    return block["type"] == "task_card" and block["status"] in ("pending", "in_progress")


def _fits(title: str) -> bool:
    return 0 < len(title) <= TASK_CHARACTERS


def _short(words: object) -> bool:
    return isinstance(words, str) and len(words) <= TASK_CHARACTERS
