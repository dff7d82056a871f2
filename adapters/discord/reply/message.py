"""Converts pages to Discord messages, and finds a message's turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import discord
from wcwidth import iter_graphemes, width

from bot.domain import PRESSES, Consent, End, Json, Page, Rating, choices
from bot.languages import later, say
from bot.text.markdown import (
    PIPE,
    Block,
    draw_signs,
    escape_formulas,
    is_table_row,
    may_be_delimiter_row,
)
from bot.text.sanitize import one_line

# A button's custom_id is one of these and the turn's id. In a question it is one of PRESSES, "-",
# the id of the call or question, ":" and the turn's id: at most 50 characters of the 100 that
# Discord takes (its documentation, "Component Reference").
STOP, REGENERATE, CONTINUE = "stop:", "regenerate:", "continue:"
# Custom ids of the rating buttons, and their ratings.
RATINGS: Mapping[str, Rating] = {"good:": "good", "bad:": "bad"}
STOP_LABEL = later("Stop")
_SIGNS: Mapping[Rating, str] = {"good": "👍", "bad": "👎"}
_OFFERED: Mapping[End, tuple[tuple[str, str], ...]] = {
    "": ((REGENERATE, later("Regenerate")),),
    "cut": ((REGENERATE, later("Regenerate")), (CONTINUE, later("Continue"))),
    "failed": ((REGENERATE, later("Retry")),),
    "older": (),
}
LIMIT = 2000  # Discord's documentation, "Create Message"

# Discord's documentation, "Component Reference": a row, a button, and the gray of a button.
_ROW, _BUTTON, _GRAY = 1, 2, 2
# Message types of replies; Discord also posts system messages as the bot ("Message Types").
_DEFAULT, _REPLY = 0, 19
# Discord shows nobody what was asked by a command, so the answer begins with a quote of it. The
# invisible character distinguishes it from a quote in the answer.
QUESTION = "> \u200b"
QUESTION_LIMIT = 200  # characters, with the line breaks behind it
_FENCE = "```"
# A zero-width space keeps the backticks of a cell from ending the code.
_FENCE_BEGUN, _APART = re.compile("``(?=`)"), "``\u200b"
# For a text: half of a message. Without a limit, short rows below a wide head would fill many
# messages with spaces.
_MOST_PADDING = 1000  # characters
# Guess: a window of 1,440 pixels shows 82 columns of code beside its lists; longer rows wrap.
_WIDEST_TABLE = 80  # columns


def body_of(
    page: Page, turn_id: str, *, rated: bool = False, private: bool = False
) -> dict[str, Json]:
    """Return the message of a page, without notifications and link previews.

    With `rated`, an answer has rating buttons. A `private` message is visible to one person; an
    edit cannot change that.
    """
    buttons: list[Any] = _buttons(page, turn_id, rated=rated)
    return {
        "content": drawn(page.text),
        "components": [{"type": _ROW, "components": buttons}] if buttons else [],
        # An edit removes all other files (Discord's documentation, "Editing Message Attachments").
        "attachments": [
            {"id": str(number), "filename": one.name} for number, one in enumerate(page.attachments)
        ],
        # Without it, Discord uses its own default (Discord's documentation, "Allowed Mentions
        # Object"), for an edit too.
        "allowed_mentions": {"parse": [], "replied_user": False},
        "flags": discord.MessageFlags(suppress_embeds=True, ephemeral=private).value,
    }


def ended_buttons(end: End, turn_id: str, *, rated: bool) -> list[dict[str, Any]]:
    """Return the buttons below an answer that has ended."""
    buttons = [_button(action, turn_id, label=say(label)) for action, label in _OFFERED[end]]
    if rated and end != "failed":
        signs = {action: _SIGNS[rating] for action, rating in RATINGS.items()}
        buttons += [_button(action, turn_id, emoji={"name": it}) for action, it in signs.items()]
    return buttons


def shows(message: dict[str, Any], page: Page, turn_id: str, *, rated: bool) -> bool:
    """Whether a message already shows this page."""
    wanted = [button["custom_id"] for button in _buttons(page, turn_id, rated=rated)]
    # Discord strips texts.
    same_text = message["content"] == drawn(page.text).strip()
    return bool(same_text and _custom_ids(message) == wanted)


def turns_of(message: dict[str, Any]) -> set[str]:
    """Return the ids of the turns that a message's buttons name."""
    return {name.partition(":")[2] for name in _custom_ids(message)}


def read_consent(action: str) -> tuple[Consent, str] | None:
    """Return the answer and the call's id in a custom_id, without the turn's; None for others."""
    name, _, call_id = action.partition("-")
    consent = PRESSES.get(name)
    return consent and (consent, call_id)


def is_unfinished(message: dict[str, Any]) -> bool:
    """Whether a message has buttons that no ended reply has: Stop, or those of a question."""
    return any(it.startswith(STOP) or read_consent(it) for it in _custom_ids(message))


def replied_to_id(message: dict[str, Any]) -> str | None:
    """Return the id of the message to which a message replies."""
    found: str | None = (message.get("message_reference") or {}).get("message_id")
    return found


def is_page(message: dict[str, Any], bot_id: str) -> bool:
    """Whether the bot wrote a message, and not as the response to an interaction."""
    author = message.get("author") or {}
    own = author.get("id") == bot_id and message.get("type") in (_DEFAULT, _REPLY)
    return own and not message.get("interaction_metadata")


def _custom_ids(message: dict[str, Any]) -> list[str]:
    return [it["custom_id"] for row in message["components"] for it in row.get("components", ())]


def _buttons(page: Page, turn_id: str, *, rated: bool) -> list[dict[str, Any]]:
    if page.last:
        return ended_buttons(page.end, turn_id, rated=rated)
    if page.final:
        return []
    if page.consent:
        return [
            _button(f"{consent}-{page.consent}:", turn_id, label=label)
            for consent, label in choices(page.consent).items()
        ]
    return [_button(STOP, turn_id, label=say(STOP_LABEL))]


def _button(action: str, turn_id: str, **face: Json) -> dict[str, Any]:
    return {"type": _BUTTON, "style": _GRAY, "custom_id": action + turn_id, **face}


def question_line(question: str) -> str:
    """Return the line that shows a question, or its beginning, without a line break."""
    line, most = QUESTION + one_line(question), QUESTION_LIMIT - 2
    return line if len(line) <= most else f"{line[: most - 1]}…"


@lru_cache(maxsize=16)
def measured(text: str) -> str:
    """Return a text at least as long as `drawn` returns, and never shorter for a longer text."""
    return _with_answer(text, escape_formulas)


@lru_cache(maxsize=16)
def drawn(text: str) -> str:
    """Return Markdown as it is written in a message: tables as code, formulas as text or code.

    The line of a question is unchanged.
    """
    return _with_answer(text, draw_signs)


def _with_answer(text: str, change: Callable[[str], str]) -> str:
    question, gap, answer = text.partition("\n") if text.startswith(QUESTION) else ("", "", text)
    return question + gap + change(tables_as_code(answer))


@lru_cache(maxsize=16)
def tables_as_code(text: str) -> str:
    """Return Markdown with each of its tables in a code fence, the cells of a column equally wide.

    Rows are unchanged once the padding is used up. The result is never shorter for a longer text.
    """
    if "\n|" not in text and not text.startswith("|"):
        return text
    return "\n".join(_with_fences(text.split("\n")))


def is_narrow(table: str) -> bool:
    """Whether the rows of a table, as code, fit a line on a laptop's screen."""
    return all(_width(row) <= _WIDEST_TABLE for row in tables_as_code(table).split("\n"))


def _with_fences(lines: list[str]) -> Iterator[str]:
    block = Block()
    at, left = 0, _MOST_PADDING
    while at < len(lines):
        block = block.after(lines[at])
        if not _begins_table(block, lines, at):
            yield lines[at]
            at += 1
            continue
        end = next((n for n in range(at, len(lines)) if not is_table_row(lines[n])), len(lines))
        yield _FENCE
        rows = lines[at:end]
        columns = zip_longest(*([width for _, width in _cells(row)] for row in rows), fillvalue=0)
        widths = tuple(map(max, columns))
        rows[1] = rows[1].replace(":", "-")
        for number, row in enumerate(rows):
            padded, left = _padded(row, widths, "-" if number == 1 else " ", left)
            yield padded
        yield _FENCE
        block, at = Block(), end


def _begins_table(block: Block, lines: list[str], at: int) -> bool:
    """Whether a table begins with this line, which has ended the block."""
    # The quick checks exclude most lines, and the last one, which may still change.
    if block.table or block.fence or at + 2 >= len(lines) or not is_table_row(lines[at]):
        return False
    return may_be_delimiter_row(lines[at + 1]) and bool(block.after(lines[at + 1]).table)


# A growing table is converted many times, and only its last row changes; this many rows fill some
# pages.
@lru_cache(maxsize=1024)
def _cells(row: str) -> tuple[tuple[str, int], ...]:
    """Return the cells of a row, and the columns that each takes in a fixed-width font."""
    return tuple((it, _width(it)) for it in PIPE.split(_FENCE_BEGUN.sub(_APART, row)))


@lru_cache(maxsize=1024)
def _padded(row: str, widths: tuple[int, ...], filler: str, left: int) -> tuple[str, int]:
    """Return the row with even columns, and how much of the padding is left."""
    *cells, (behind, _) = _cells(row)
    padded = []
    # The text after a row's last pipe, and the last cell of an incomplete row, need no padding.
    for (text, taken), column in zip(cells, widths, strict=False):
        padding = min(column - taken, left)
        left -= padding
        padded.append(text + filler * padding)
    return "|".join([*padded, behind]), left


def _width(cell: str) -> int:
    if cell.isascii():
        return len(cell)
    # Without the text presentation selector, which would make a cell narrower as the text grows. By
    # character, because the time of `width` for a row of flags is quadratic (wcwidth 0.9.4).
    graphemes = iter_graphemes(cell.replace("\ufe0e", ""))
    return sum(len(one) if one.isascii() else width(one) for one in graphemes)
