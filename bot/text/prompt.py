"""The prompt of a turn: the system prompt, what others said before, the history, the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from unicodedata import category, normalize
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bot.domain import ContextMessage, Exchange, FileText, Message, Person, Turn
from bot.text.context import FORGED, INSTRUCTIONS, NOTICE, PERSONA, marked
from bot.text.files import FILES_NOTICE
from bot.text.graphemes import cut_before
from bot.text.sanitize import mark_control_tokens, one_line
from config.settings import PLACEHOLDERS

_PLACEHOLDER = re.compile(rf"\{{({'|'.join(PLACEHOLDERS)})\}}")
_LONGEST = 100  # characters of a name or a place
_NAME_LENGTH = 40  # characters
# Characters that look like a colon: Unicode's confusables.txt (17.0), and colons of other scripts.
# In words of their own scripts the last two are letters.
_COLONS = re.compile(
    r"[:\u02d0\u02f8\u0589\u05c3\u0703\u0704\u1361\u1365\u1366\u16ec\u1803\u1804\u1809\u205a"
    r"\u2236\u2237\u2982\u2a74\ua4fd\ua789\ufe13\ufe30\ufe55\uff1a]"
    r"|(?<![\u0900-\u097f])\u0903|(?<![\u0a80-\u0aff])\u0a83"
)
# Default_Ignorable_Code_Point and a blank, beside category Cf (Unicode 17.0).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_MARK = r"[\W_]"
_NO_FILES: Mapping[str, FileText] = {}
_OWN_LABEL, _REPLY = "You", "In reply to "


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """The text that precedes every conversation.

    `{date}`, `{time}`, `{name}`, `{place}` and `{platform}` are filled in; other braces stay. If it
    has none of them and `adds_line`, one line with all but the time is added, and each question
    ends with its time. An empty text stays empty. `platforms` says where a turn is, by the
    platform's name.
    """

    text: str
    adds_line: bool = True
    platforms: Mapping[str, str] = field(default_factory=dict)

    def for_turn(self, turn: Turn) -> str:
        """Return the system prompt of a turn."""
        zone = zone_of(turn.zone)
        asked = datetime.fromtimestamp(turn.asked_at, zone)
        values = {
            "date": f"{asked:%A}, {asked.date().isoformat()}",
            "time": f"{asked:%H:%M} ({zone})",
            "name": _harmless(turn.person.name) or "somebody",
            "place": _harmless(turn.where) or "this conversation",
            "platform": self.platforms.get(turn.key.platform, turn.key.platform),
        }
        filled = _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)
        if self.zone(turn):
            times = f"Each question ends with its time ({zone})."
            filled += f"\n\nToday is {values['date']}. {times}"
            if turn.person.name:
                place = f" in {values['place']}" if turn.where else ""
                filled += f" You talk with {values['name']}{place} on {values['platform']}."
        return filled

    def zone(self, turn: Turn) -> tzinfo | None:
        """Return the zone of the times at the end of the questions; None leaves them out."""
        adds = self.adds_line and self.text.strip() and not _PLACEHOLDER.search(self.text)
        return zone_of(turn.zone) if adds else None


def zone_of(name: str) -> tzinfo:
    """Return the zone of an IANA name; UTC if there is no such zone."""
    try:
        return ZoneInfo(name) if name else UTC
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC


def _harmless(name: str) -> str:
    """Return a name that people chose, on one line, in quotes, so that it is no instruction."""
    name = one_line(name).replace('"', "'")
    name = mark_control_tokens(name[: cut_before(name, _LONGEST)].strip())
    return f'"{name}"' if name else ""


def compose(
    *,
    system: str,
    exchanges: Sequence[Exchange],
    turn: Turn,
    context: Sequence[ContextMessage] = (),
    files: Mapping[str, FileText] = _NO_FILES,
    zone: tzinfo | None = None,
) -> tuple[Message, ...]:
    """Return the system prompt, all exchanges and the new message, in this order.

    User and assistant alternate, no answer is empty, and an empty system prompt is left out. If
    several persons speak in the thread, or any message has a context, each user message begins with
    "Name: ". The second person of one name is "Name (2): ", and the bot itself is "You: ". Further
    lines that begin like a label, or like a mark of a context, are quoted with "> ". `context` is
    that of the new message, and what it replies to is the end of it. `files` has by their ids what
    was read of files; each is at the last message that shows it. The context of the system prompt
    is the persona that people chose for the turn, and what its person wants in all answers. With a
    `zone`, each question ends with its time; the earlier ones keep it, so that the beginning of the
    next prompt is the same.
    """
    answered = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    asked = Exchange(turn.id, turn.person, turn.asked_at, turn.text, "", turn.quote, (*context,))
    asked = replace(asked, files=turn.files)
    owners = {file.id: one for one in (*answered, asked) for file in one.all_files}
    before = ["", *(one.answer for one in answered)]
    contexts = [_context(*each) for each in zip((*answered, asked), before, strict=True)]
    speakers = [
        person
        for one, shown in zip((*answered, asked), contexts, strict=True)
        for person in (*(each.person for each in shown), one.person)
    ]
    has_context = any(contexts)
    several = has_context or len({person.id for person in speakers if person}) > 1
    labels = labels_of(speakers) if several else {}
    is_label = _label_matcher(labels.values(), marks=has_context)

    def labelled(person: Person | None, text: str, *, prefix: str = "") -> str:
        first, *further = text.splitlines(keepends=True) or [""]
        quoted = (f"> {line}" if is_label(line) else line for line in further)
        return f"{prefix}{labels[person]}: {first}{''.join(quoted)}"

    def question(one: Exchange, shown: Sequence[ContextMessage]) -> Message:
        texts = tuple(
            labelled(each.person, each.text, prefix=_REPLY if each is one.quote else "")
            for each in shown
        )
        said = labelled(one.person, one.question) if several else one.question
        asked_at = f"\n({datetime.fromtimestamp(one.asked_at, zone):%a %H:%M})" if zone else ""
        own = (file for file in one.all_files if owners[file.id] is one)
        read = tuple(files.get(file.id) or FileText(file.name) for file in own)
        return Message("user", said + asked_at, texts, read)

    if has_context:
        system = f"{system}\n\n{NOTICE}".strip()
    if owners:
        system = f"{system}\n\n{FILES_NOTICE}".strip()
    chosen = (PERSONA, turn.preferences.persona), (INSTRUCTIONS, turn.instructions)
    wishes = tuple(marked(head, mark_control_tokens(text)) for head, text in chosen if text)
    messages = []
    if system.strip() or wishes:
        messages.append(Message("system", system.strip() and system, wishes))
    for one, shown in zip(answered, contexts, strict=False):
        messages += question(one, shown), Message("assistant", one.answer)
    return (*messages, question(asked, contexts[-1]))


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with the system prompt at the head of the first question."""
    if len(messages) < 2 or messages[0].role != "system":
        return tuple(messages)
    system, first, *rest = messages
    return replace(first, text=f"{system.text}\n\n{first.text}"), *rest


def _context(one: Exchange, answer: str) -> list[ContextMessage]:
    """Return what is shown before a question; a reply to the `answer` before it needs no quote."""
    quote = one.quote
    is_known = quote and quote.person is None and quote.text.strip() in answer
    shown = [each for each in one.context if not quote or each.id != quote.id]
    if quote and not is_known:
        shown.append(quote)
    return [each for each in shown if each.text.strip()]


def labels_of(speakers: Collection[Person | None]) -> dict[Person | None, str]:
    """Return labels on one line; no two look the same, and the first person of a name keeps it."""
    # The bot's label is reserved, even if none of its messages are shown.
    labels: dict[Person | None, str] = {None: _OWN_LABEL}
    owners = {_folded(_OWN_LABEL): ""}
    # If a name was not known yet, the id replaces it.
    named = {one.id: one.name for one in speakers if one and one.name != one.id}
    for person in speakers:
        if person is None or person in labels:
            continue
        known = named.get(person.id, "") if person.name == person.id else person.name
        name = _visible(_COLONS.sub(" ", known or person.name))
        name = name[: cut_before(name, _NAME_LENGTH)].rstrip()
        if not name or FORGED.match(_folded(name)) or _folded(name).startswith(_REPLY.casefold()):
            name = "Somebody"
        label, number = name, 1
        while owners.setdefault(_folded(_visible(label)), person.id) != person.id:
            number += 1
            label = f"{name} ({number})"
        labels[person] = label
    return labels


def _label_matcher(labels: Iterable[str], *, marks: bool) -> Callable[[str], bool]:
    """Return whether a line could pass for the start of another message, or with `marks` a mark."""
    keys = [_folded(_visible(label)) for label in labels]
    names = "|".join(map(re.escape, keys))
    names = rf"(?:in reply to )?(?:{names})"
    begins = re.compile(rf"{_MARK}{{0,20}}{names}(?:{_MARK}?\(\d{{1,9}}\))?{_MARK}{{0,8}}:")
    # The longest such beginning, if each character is composed of two.
    longest = 100 + max((len(normalize("NFKD", key)) for key in keys), default=0)

    def is_label(line: str) -> bool:
        if not marks and not _COLONS.search(line):
            return False
        # Lines are cut, because normalizing thousands of combining marks takes seconds.
        folded = _folded(_visible(line)[:longest])
        return bool(begins.match(folded) or (marks and FORGED.match(folded)))

    return is_label


def _folded(visible: str) -> str:
    """Return the same text for texts that look alike."""
    return normalize("NFKC", _COLONS.sub(":", visible)).casefold()


def _visible(text: str) -> str:
    """Return a text on one line, without invisible characters."""
    characters = (
        c if c.isprintable() else "" if category(c) == "Cf" else " "
        for c in _INVISIBLE.sub("", text)
    )
    return " ".join("".join(characters).split())
