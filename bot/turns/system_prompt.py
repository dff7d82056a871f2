"""The operator's system prompt, filled in for a turn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bot.domain import Turn
from bot.text.graphemes import cut_before
from bot.text.sanitize import mark_control_tokens, one_line

_PLACEHOLDER = re.compile(r"\{(date|time|name|place|platform)\}")
_LONGEST = 100  # characters of a name or a place
_PLATFORMS = {"discord": "Discord", "slack": "Slack", "console": "a terminal"}


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """The text that precedes every conversation.

    `{date}`, `{time}`, `{name}`, `{place}` and `{platform}` are filled in; other braces stay. If it
    has none of them and `adds_line`, one line with all but the time is added. A time would change
    the beginning of the prompt with each question, and a local server, which keeps what it has read
    of a conversation, would read all of it again. An empty text stays empty.
    """

    text: str
    adds_line: bool = True

    def for_turn(self, turn: Turn) -> str:
        """Return the system prompt of a turn."""
        zone = _zone(turn.zone)
        asked = datetime.fromtimestamp(turn.asked_at, zone)
        values = {
            "date": f"{asked:%A}, {asked.date().isoformat()}",
            "time": f"{asked:%H:%M} ({zone})",
            "name": _harmless(turn.person.name) or "somebody",
            "place": _harmless(turn.where) or "this conversation",
            "platform": _PLATFORMS.get(turn.key.platform, turn.key.platform),
        }
        filled = _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)
        if filled == self.text and self.adds_line and self.text.strip():
            filled += f"\n\nToday is {values['date']}.{_about(turn, values)}"
        return filled


def _about(turn: Turn, values: dict[str, str]) -> str:
    if not turn.person.name:
        return ""
    place = f" in {values['place']}" if turn.where else ""
    return f" You talk with {values['name']}{place} on {values['platform']}."


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC


def _harmless(name: str) -> str:
    """Return a name that people chose, on one line, in quotes: it must not pass for the prompt."""
    name = one_line(name).replace('"', "'")
    name = mark_control_tokens(name[: cut_before(name, _LONGEST)].strip())
    return f'"{name}"' if name else ""
