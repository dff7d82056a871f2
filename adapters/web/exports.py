"""Conversations as Markdown and JSON, for their person to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from adapters.web.talks import Talk
from bot.domain import Standing
from bot.intake.answers import GO_ON, question_of


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


def as_json(talk: Talk, turns: Sequence[Standing]) -> str:
    """Return a conversation as a JSON object; times are in seconds since the epoch."""
    listed = [
        {
            "asked_at": one.asked_at,
            "question": question_of(one),
            "files": [file.name for file in one.files],
            "answer": one.answer,
            "below": one.below,
            "model": one.model,
            "state": one.state,
        }
        for one in turns
    ]
    return json.dumps({**asdict(talk), "turns": listed}, ensure_ascii=False, indent=1)
