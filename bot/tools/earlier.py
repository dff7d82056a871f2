"""Tools that read what was said before a question, and may not be in its prompt."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial

from bot.domain import Json, Person, ThreadKey, Tool
from bot.errors import PlaceGone, SurfaceError, WriteDelayed
from bot.languages import later
from bot.ports import Platform, ReadEarlier
from bot.text.prompt import labels_of, zone_of
from bot.text.sanitize import strip_controls
from bot.tools.toolset import Asked, Offered, ToolFailed, ToolResult, whole_number

_PAGE = 30  # messages
_SEARCHED = 100  # messages that are searched at once: no platform gives more by one request
_MOST_CHARACTERS = 1_000  # of one message
_BEFORE_WORD = 300  # of these
_SIGN = later("Reading earlier messages")
_WORD: Json = {"type": "string", "description": "Only messages that contain this"}
_REMEMBERED = Tool(
    "read_earlier_messages",
    "Reads what was asked and answered in this conversation before, also what you do not see any "
    f"more, {_PAGE} messages at a time.",
    {
        "type": "object",
        "properties": {
            "page": {
                "type": "integer",
                "description": "1 for the newest messages; the last page has the first ones",
            },
            "word": _WORD,
        },
    },
)
_EVERYBODY = Tool(
    "read_channel_messages",
    "Reads what people have written in this channel or thread before the question, to you or to "
    f"each other, the newest {_PAGE} messages first.",
    {
        "type": "object",
        "properties": {
            "before": {
                "type": "string",
                "description": "Only what was written before this, such as 2026-11-30 14:05",
            },
            "word": _WORD,
        },
    },
)

# When something was written, by whom (None is the bot), and what.
_Line = tuple[float, Person | None, str]


class EarlierMessages:
    """Offers the history of a conversation, and what its `platforms` have of its place.

    Of the place nothing is read if the conversation `is_seen`, and no messages that are `withheld`:
    those were forgotten, or are answered now. Nor is what the bot has written there: the history
    has it, or it was forgotten.
    """

    def __init__(
        self,
        *,
        platforms: Mapping[str, Platform],
        is_seen: Callable[[ThreadKey], Awaitable[bool]],
        withheld: Callable[[Sequence[str]], Awaitable[Collection[str]]],
    ) -> None:
        self._platforms = platforms
        self._is_seen = is_seen
        self._withheld = withheld

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return the tools for which there may be something to read."""
        key, found = asked.turn.key, list[Offered]()
        if asked.remembered:
            found.append(Offered(_REMEMBERED, "reads", partial(_remembered, asked), sign=_SIGN))
        platform = self._platforms.get(key.platform)
        read = platform.earlier(asked.turn) if platform else None
        if read and not await self._is_seen(key):
            run = partial(self._everybody, asked, read)
            found.append(Offered(_EVERYBODY, "reads", run, sign=_SIGN))
        return found

    async def _everybody(
        self, asked: Asked, read: ReadEarlier, arguments: Mapping[str, Json], key: str
    ) -> ToolResult:
        zone, word = zone_of(asked.turn.zone), _text(arguments, "word")
        written, before = _text(arguments, "before"), asked.turn.asked_at
        try:
            before = max(min(_time(written, zone), before), 0.0) if written else before
            found = await read(before, _SEARCHED if word else _PAGE)
        except (ValueError, OverflowError):
            raise ToolFailed("`before` must be a time, such as 2026-11-30 14:05.") from None
        except PlaceGone:
            raise ToolFailed("I may not read what was written here.") from None
        except WriteDelayed:
            raise ToolFailed("I may read only now and then here. Try it in a minute.") from None
        except SurfaceError:
            raise ToolFailed("What was written here cannot be read now.") from None
        hidden = await self._withheld([one.id for _, one in found.messages])
        lines = [
            (at, one.person, one.text)
            for at, one in found.messages
            if one.person and one.id not in hidden and one.text.strip()
        ]
        chosen = _matching(lines, word)
        shown = chosen[-_PAGE:]
        unread = shown[0][0] if len(chosen) > _PAGE else found.unread_before
        note = "Nothing was written here before these."
        if unread:
            again = datetime.fromtimestamp(unread, zone)
            note = f'There is more: call this again with before="{again}".'
        if found.has_gap:
            note += " Messages are missing after these: only the first ones can be read."
        return ToolResult(f"{note}\n{_shown(shown, labels_of(_people(lines)), word, zone)}")


async def _remembered(asked: Asked, arguments: Mapping[str, Json], key: str) -> ToolResult:
    lines: list[_Line] = []
    for one in asked.remembered:
        beside = (*one.context, *filter(None, (one.quote,)))
        lines += [(one.asked_at, each.person, each.text) for each in beside if each.person]
        lines += [(one.asked_at, one.person, one.question), (one.asked_at, None, one.answer)]
    word = _text(arguments, "word")
    found = _matching(lines, word)
    pages = max(-(-len(found) // _PAGE), 1)
    page = min(max(whole_number(arguments.get("page"), default=1), 1), pages)
    end = len(found) - (page - 1) * _PAGE
    note = f"Page {page} of {pages}; 1 has the newest messages, and {pages} the first ones."
    shown, labels = found[max(end - _PAGE, 0) : end], labels_of(_people(lines))
    text = _shown(shown, labels, word, zone_of(asked.turn.zone))
    foreign = any(person and person.id != asked.turn.person.id for _, person, _ in shown)
    return ToolResult(f"{note}\n{text}", foreign=foreign)


def _people(lines: Sequence[_Line]) -> list[Person | None]:
    return [person for _, person, _ in lines]


def _matching(lines: Sequence[_Line], word: str) -> Sequence[_Line]:
    return [one for one in lines if word.casefold() in one[2].casefold()] if word else lines


def _shown(
    lines: Sequence[_Line], labels: Mapping[Person | None, str], word: str, zone: tzinfo
) -> str:
    """Return a line for each message; its further lines are indented."""
    shown = [
        f"[{datetime.fromtimestamp(at, zone):%Y-%m-%d %H:%M}] {labels[person]}: "
        + "\n  ".join(_excerpt(text, word).splitlines())
        for at, person, text in lines
    ]
    return "\n".join(shown) or ("No message has this word." if word else "There is no message.")


def _excerpt(text: str, word: str) -> str:
    text = strip_controls(text)
    found = re.search(re.escape(word), text, re.IGNORECASE) if word else None
    begin = max(found.start() - _BEFORE_WORD, 0) if found else 0
    end = begin + _MOST_CHARACTERS
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def _time(written: str, zone: tzinfo) -> float:
    """Return a time that a model has written. Raises ValueError or OverflowError."""
    found = datetime.fromisoformat(written)
    return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()


def _text(arguments: Mapping[str, Json], name: str) -> str:
    value = arguments.get(name)
    return value.strip() if isinstance(value, str) else ""
