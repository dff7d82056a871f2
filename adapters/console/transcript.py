"""What was said in a terminal, and which answers are still to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from adapters.console.growing import Growing, Growth
from adapters.console.talk import Reply
from bot.domain import Turn
from bot.text.sanitize import strip_controls

_MOST = 500  # exchanges that are kept; the thread itself remembers fewer


@dataclass(eq=False, slots=True)
class Asked:
    """A question and its reply; `live` is the block of it that still changes.

    `is_shown` tells that the question stands on the screen, and `since` when its answer was first
    awaited, in seconds of a monotonic clock. `former` is the answer that is replaced.
    """

    turn: Turn
    is_shown: bool
    since: float
    text: str = ""
    former: str = ""
    live: str = ""
    note: str = ""
    growing: Growing = field(default_factory=Growing)

    def show(self, reply: Reply) -> Growth:
        """Take a state of the reply, and return what it changes on the screen."""
        self.note = reply.note
        if self.former and reply.text == self.former and not reply.last:
            return Growth()
        self.text = reply.text
        growth = self.growing.show(strip_controls(reply.text), last=reply.last)
        self.live = growth.live
        return growth


class Transcript:
    """The questions of a conversation in their order; those in `open` have no whole answer yet."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.all: list[Asked] = []
        self.open: list[Asked] = []

    @property
    def last(self) -> Asked | None:
        """The newest question."""
        return self.all[-1] if self.all else None

    @property
    def growing(self) -> Asked | None:
        """The question that is answered now, or next."""
        return self.open[0] if self.open else None

    def find(self, turn_id: str) -> Asked | None:
        """Return a question by its turn."""
        return next((one for one in reversed(self.all) if one.turn.id == turn_id), None)

    def remember(self, turn: Turn, answer: str) -> None:
        """Add an exchange of an earlier time."""
        self.all.append(Asked(turn, is_shown=True, since=0.0, text=answer))

    def ask(self, turn: Turn, *, is_shown: bool) -> Asked:
        """Add a question whose answer is to come."""
        asked = Asked(turn, is_shown, self._clock())
        self.all = [*self.all, asked][-_MOST:]
        self.open.append(asked)
        return asked

    def reopen(self, asked: Asked, turn: Turn) -> None:
        """Await a new answer to a question, which may have changed."""
        asked.turn, asked.since = turn, self._clock()
        asked.former, asked.live, asked.note, asked.growing = asked.text, "", "", Growing()
        if asked not in self.open:
            self.open.append(asked)

    def end(self, asked: Asked) -> None:
        """Note that the answer of a question is whole."""
        asked.live = asked.note = asked.former = ""
        self.open.remove(asked)
        if self.open:
            self.open[0].since = self._clock()

    def drop(self, asked: Asked) -> None:
        """Forget a question that gets no answer."""
        for questions in (self.all, self.open):
            if asked in questions:
                questions.remove(asked)

    def forget(self) -> None:
        """Forget all questions that are answered."""
        self.all = list(self.open)

    def forget_all(self) -> None:
        """Forget all questions, and await no answers."""
        self.all, self.open = [], []

    def late(self, patience: float) -> Asked | None:
        """Return the question that is answered now, if that has taken longer than so many s."""
        growing = self.growing
        return growing if growing and self._clock() - growing.since > patience else None

    def markdown(self) -> str:
        """Return what was said, as Markdown: each answer exactly as the model has written it."""
        return "\n".join(f"## you\n\n{one.turn.text}\n\n## bot\n\n{one.text}\n" for one in self.all)


def save(transcript: Transcript, name: str) -> str:
    """Write a conversation to a new file; return a sentence on how that went."""
    if not name:
        return "Where to? Say /save FILE."
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(transcript.markdown())
    except FileExistsError:
        return f"{name} exists already: choose another name."
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"I cannot write {name}: {reason}"
    return f"Saved to {name}."
