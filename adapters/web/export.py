"""A conversation as a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from bot.domain import Standing
from bot.intake.answers import GO_ON


def as_markdown(title: str, turns: Sequence[Standing]) -> str:
    """Return the questions and answers below headings, unchanged."""
    parts = [f"# {title}"] if title else []
    for one in turns:
        asked = datetime.fromtimestamp(one.asked_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if one.question != GO_ON:
            parts.append(f"## You, {asked}\n\n{one.question}")
        by = f" ({one.model})" if one.model else ""
        parts.append(f"## Parley{by}\n\n{one.answer}")
        if one.below:
            parts.append(one.below)
    return "\n\n".join(parts) + "\n"


def file_name(title: str) -> str:
    """Return a name that is valid in all file systems and headers."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{words[:60].strip('-') or 'conversation'}.md"
