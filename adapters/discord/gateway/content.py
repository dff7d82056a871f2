"""What a Discord message has beside its own text, as lines for the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import discord

# Characters of all embeds and components of a forwarded message, or of a poll. Discord's own limits
# are 6000 for a message's embeds ("Embed Limits") and 4000 for its components.
_LIMIT = 10_000


def enclosed(message: discord.Message) -> list[str]:
    """Return a line for the poll, each sticker and each file of a message."""
    lines = _named(message)
    if poll := message.poll:
        answers = " / ".join(filter(None, (answer.text for answer in poll.answers)))
        lines.insert(0, "[poll] " + _bounded(f"{poll.question} {answers}"))
    return lines


def forwarded(snapshot: discord.MessageSnapshot) -> list[str]:
    """Return the text of a forwarded message, with its components and embeds, then its files."""
    parts = [*_component_texts(snapshot.components), *map(_embed, snapshot.embeds)]
    rich = _bounded("\n".join(filter(None, parts)))
    text = "\n".join(filter(None, [snapshot.content, rich]))
    head = f"[forwarded] {text}".rstrip()
    return [head, *_named(snapshot)]


def _named(message: discord.Message | discord.MessageSnapshot) -> list[str]:
    stickers = [f"[sticker: {sticker.name}]" for sticker in message.stickers]
    return stickers + [f"[file: {attachment.filename}]" for attachment in message.attachments]


def _embed(embed: discord.Embed) -> str:
    fields = [": ".join(filter(None, [field.name, field.value])) for field in embed.fields]
    return "\n".join(filter(None, [embed.author.name, embed.title, embed.description, *fields]))


def _component_texts(components: Iterable[Any]) -> Iterator[str]:
    """Yield the text displays, those in sections and containers too, in their order."""
    for component in components:
        if isinstance(component, discord.TextDisplay):
            yield component.content
        elif isinstance(component, discord.SectionComponent | discord.Container):
            yield from _component_texts(component.children)


def _bounded(text: str) -> str:
    return text if len(text) <= _LIMIT else text[:_LIMIT] + "…"
