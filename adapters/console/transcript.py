"""The exchanges of a terminal session."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from adapters.console.answering import Answering, prompt_of
from adapters.console.render import BlockSplitter, BlockUpdate
from adapters.console.talk import ReplyState
from bot.domain import FORM, Turn
from bot.languages import say
from bot.text.sanitize import strip_controls

_MOST = 500  # exchanges; the history of the thread is shorter


@dataclass(eq=False, slots=True)
class AskedQuestion:
    """A question and its reply; `live` is the block that still changes.

    `is_shown`: the question is on the screen. `since`: when its answer was first awaited (monotonic
    clock). `previous_answer`: what is shown while another answer is awaited. `consent`: the call
    that the person is to allow, or the question of its server, as the `note` says; `answering` has
    the fields of its form.
    """

    turn: Turn
    is_shown: bool = False
    since: float = field(default_factory=time.monotonic)
    text: str = ""
    previous_answer: str = ""
    live: str = ""
    note: str = ""
    consent: str = ""
    answering: Answering | None = None
    splitter: BlockSplitter = field(default_factory=BlockSplitter)

    @property
    def prompt(self) -> str:
        """What the person is to say, if anything."""
        if self.answering and self.answering.call_id == self.consent:
            return self.answering.prompt
        return prompt_of(self.consent) if self.consent and not self.is_form else ""

    @property
    def is_form(self) -> bool:
        """Whether the person is asked for the fields of a form."""
        return self.consent.startswith(FORM)

    def show(self, reply: ReplyState) -> BlockUpdate:
        """Process a state of the reply, and return the change of the screen."""
        self.note, self.consent = reply.note, reply.consent
        if self.previous_answer and reply.text == self.previous_answer and not reply.last:
            return BlockUpdate()
        self.text = reply.text
        growth = self.splitter.show(strip_controls(reply.text), last=reply.last)
        self.live = growth.live
        return growth


class Transcript:
    """The questions in order; those in `unanswered` have no complete answer yet."""

    def __init__(self) -> None:
        self.all: list[AskedQuestion] = []
        self.unanswered: list[AskedQuestion] = []

    @property
    def last(self) -> AskedQuestion | None:
        """The newest question."""
        return self.all[-1] if self.all else None

    @property
    def growing(self) -> AskedQuestion | None:
        """The question that is being answered, or is next."""
        return self.unanswered[0] if self.unanswered else None

    def find(self, turn_id: str) -> AskedQuestion | None:
        """Return a question by its turn."""
        return next((one for one in reversed(self.all) if one.turn.id == turn_id), None)

    def ask(self, turn: Turn) -> AskedQuestion:
        """Add an unanswered question."""
        asked = AskedQuestion(turn)
        self.all = [*self.all, asked][-_MOST:]
        self.unanswered.append(asked)
        return asked

    def reopen(self, asked: AskedQuestion, turn: Turn) -> None:
        """Await a new answer to a question, which may have changed."""
        asked.turn, asked.is_shown, asked.since = turn, False, time.monotonic()
        asked.previous_answer, asked.live, asked.note = asked.text, "", ""
        asked.consent = ""
        asked.splitter = BlockSplitter()
        if asked not in self.unanswered:
            self.unanswered.append(asked)

    def end(self, asked: AskedQuestion) -> None:
        """Mark the answer of a question as complete."""
        asked.live = asked.note = asked.consent = asked.previous_answer = ""
        self.unanswered.remove(asked)
        if self.unanswered:
            self.unanswered[0].since = time.monotonic()

    def drop(self, asked: AskedQuestion) -> None:
        """Remove a question that will not be answered."""
        for questions in (self.all, self.unanswered):
            if asked in questions:
                questions.remove(asked)

    def forget(self, *, unanswered: bool = False) -> None:
        """Remove the answered questions, or all."""
        if unanswered:
            self.unanswered = []
        self.all = list(self.unanswered)

    def overdue(self, patience: float) -> AskedQuestion | None:
        """Return the current question if it exceeds `patience` seconds."""
        growing = self.growing
        if growing and growing.consent:
            growing.since = time.monotonic()  # a person may take their time
        return growing if growing and time.monotonic() - growing.since > patience else None

    def save(self, name: str) -> str:
        """Write the exact texts to a new file, as Markdown; return a status message."""
        if not name:
            return say("Which file? Write /save FILE.")
        parts = (f"## you\n\n{one.turn.text}\n\n## bot\n\n{one.text}\n" for one in self.all)
        try:
            with Path(name).expanduser().open("x", encoding="utf-8", errors="replace") as file:
                file.write("\n".join(parts))
        except FileExistsError:
            return say("{name} exists already: choose another name.", name=name)
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return say("I cannot write {name}: {reason}", name=name, reason=reason)
        return say("Saved to {name}.", name=name)
