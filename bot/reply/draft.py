"""What a reply should show at any moment, and what its messages show."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bot.domain import (
    UNKNOWN,
    Attachment,
    ConsentNeeded,
    End,
    Outcome,
    Page,
    Shown,
    Source,
    StepNotes,
)
from bot.errors import GivenUp
from bot.languages import later, number, say
from bot.reply.pages import Measure, Pager
from bot.reply.thoughts import Thoughts
from bot.text.attachments import attachments
from bot.text.markdown import close
from bot.text.sanitize import in_code, whole_characters

STOPPED = "(Stopped.)"
STOPPED_ANEW = "(Stopped: the earlier answer stays.)"
FAILED_ANEW = "(There is no new answer, so the earlier one stays. {apology})"
WAITING = "(Still thinking…)"
THINKING = later("(Thinking …)")
BUSY = "(The model is busy. I keep trying.)"
READING = "(Reading {names} …)"
DOING = "({what} …)"
# Below an answer: what its calls of tools came to, and the pages that they found.
STEPS = "(Steps: {steps}.)"
CALLED_BEFORE = "(An earlier answer to this question has called {calls}.)"
NOT_KNOWN = "I do not know whether this was done: {calls}."
SOURCES = "Sources:"
_MOST_SOURCES = 10
_CITED = re.compile(r"\[(\d{1,3})\]")
# On a page of the previous answer that the new one has not reached.
PENDING = "…"
# Below an answer of another model than the chosen one.
ANSWERED_BY = "(Answered by `{model}`.)"
# Below an answer to a question that was too long to be read whole.
LEFT_OUT = (
    "(Your message is too long for me to read at once. I read its beginning and its end, and left"
    " out {characters} characters between them.)"
)
# Below the first answer for which the conversation was too long.
BEGINNING_LEFT_OUT = "(We have talked for so long that I no longer see how our conversation began.)"
# Below an answer for which the platform let nobody read the thread.
CONTEXT_UNREAD = "(I could not read all the messages before yours.)"
_LONG_WORD = 20  # characters


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ends, with the reason; one that a person deleted is not remembered."""

    outcome: Outcome
    notice: str = ""
    is_deleted: bool = False


class Draft:
    """The text of a reply, and the pages that it makes.

    `earlier` is the reply of the previous attempt. Its text stays visible until the new one is
    longer, or permanently if that never happens; so does the text before a new start. If it has an
    outcome, it is the whole reply. `previous_answer` is an earlier answer to the same question: the
    first new text replaces it, and it is restored if the new answer fails or is stopped before
    that. `left_out` is how many characters the question has lost before the model reads it. While
    the draft is `silent`, a sign of life is below the text. A reply that is not `remembered` ends
    without buttons. `shows_whole` and `shows_thoughts` are those of the surface. The `thoughts` are
    the model's, and no part of the text.
    `unknown` are calls of earlier attempts of which nobody knows whether they had an effect: an end
    says so, unless their steps were noted again. So it does of tools that were `called_before`, for
    earlier answers.
    """

    def __init__(
        self,
        *,
        limit: int,
        measure: Measure,
        earlier: Shown,
        shows_whole: Callable[[str], bool] = lambda _: True,
        previous_answer: str = "",
        left_out: int = 0,
        remembered: bool = True,
        unknown: Sequence[str] = (),
        called_before: Sequence[str] = (),
        thoughts: Thoughts | None = None,
        shows_thoughts: bool = False,
    ) -> None:
        self.earlier = earlier
        self.thoughts = thoughts or Thoughts()
        self._shows_thoughts = shows_thoughts
        self.silent = False
        self.is_retried = False  # the model has failed since the last text, and is asked again
        # The previous attempt ended without any text of the model.
        self.is_apology = bool(earlier.outcome and earlier.text and not earlier.said)
        self._remembered = remembered
        self._unknown = unknown
        self._called_before = _named(called_before)
        self._pager = Pager(limit=limit, measure=measure)
        # Text that was saved before a first post that failed is not visible.
        said = earlier.said if earlier.message_ids else ""
        self._shown_before = Shown(text=said, below=earlier.below, model=earlier.model)
        self.previous_answer = previous_answer
        self._deltas: list[str] = []
        self._model = ""
        self._left_out = left_out
        # What the model has not read: characters of the question, the beginning of the talk, the
        # messages before the question, and of files, in sentences.
        self.left_out_by_model = 0
        self.is_beginning_left_out = False
        self.is_context_unread = False
        self.files_left_out = ""
        self.reading: tuple[str, ...] = ()  # names of files that are read now
        self.consent: ConsentNeeded | None = None  # what a person is asked; the text waits
        self._steps = StepNotes(())
        self._final: Shown | None = earlier if earlier.outcome else None
        self._shows_whole = shows_whole
        self._attachments: tuple[Attachment, ...] | None = None  # None if not made yet
        self._split = earlier.cut if earlier.outcome else None

    @property
    def has_ended(self) -> bool:
        """Whether the text is final."""
        return self._final is not None

    @property
    def split_page(self) -> int | None:
        """The number of a page whose rest is shown by the next ones, so that it can wait."""
        return self._split[0] if self._split else None

    @property
    def has_begun(self) -> bool:
        """Whether there is text of the model since its last start."""
        return bool(self._answer.text)

    def shown(self, message_ids: Sequence[str]) -> Shown:
        """Return what these messages show, or will show after the next write."""
        shown = self._final
        if not shown:
            answer = self._longer
            said = _said(answer)
            shown = replace(answer, text=said, said=said)
        thought = self.thoughts.value if self._shows_thoughts else None
        return replace(shown, message_ids=tuple(message_ids), cut=self._split, thought=thought)

    def add(self, delta: str) -> None:
        """Add to the text."""
        self._deltas.append(delta)
        self.silent = self.is_retried = self.thoughts.is_growing = False

    def note_steps(self, steps: StepNotes) -> None:
        """Note the calls of tools so far; the sign of life says what is done now."""
        self._steps = steps
        self.thoughts.keep()

    def start(self, model: str) -> None:
        """Restart the text, by this model; "" is the chosen one."""
        self._shown_before = self._longer
        self._deltas = []
        self.left_out_by_model, self.is_beginning_left_out, self.files_left_out = 0, False, ""
        self._model = model

    def end(self, ending: Ending) -> None:
        """End the text. A failed write or a deletion may end it again."""
        self._finish(self._at_end(ending))

    def refuse(self, apology: str, *, visible: Mapping[int, str], last: int) -> list[Page]:
        """End the text with its `visible` pages, by number, because the platform refuses more.

        Return the pages that can show the apology, in the order to try them: the last page without
        its last words, if there is one; then a new page.
        """
        shown = self.shown(())
        footer = shown.below if visible else self._shown_before.below
        notices = shown.text[len(shown.said) :]
        texts = {number: text.removesuffix(notices) for number, text in visible.items()}
        texts = texts or dict(enumerate(self._pager.cut(self._shown_before.text)))
        notice = with_notice(footer if any(texts.values()) else "", apology)
        if self._pager.measure(notice) > self._pager.limit:
            notice = apology
        if last in texts:
            texts[last] = self._make_room(texts[last], notice)
        answer = Shown(text="\n".join(texts.values()), below=footer)
        end = self._finish(_finished(answer, apology, "failed"))
        alone = Page(last + 1, notice, final=True, last=True, end=end)
        closed = with_notice(texts.get(last, ""), notice)
        return [replace(alone, number=last, text=closed), alone] if last >= 0 else [alone]

    def split(self, page: Page) -> bool:
        """End a page of the final text at the words that it showed; False if it cannot."""
        pages = self.pages(0)
        if page.said and pages[page.number].text.startswith(page.said):
            self._split = (page.number, len(page.said))
        if len(self.pages(0)) == len(pages):
            self._split = None
        return self._split is not None

    def pages(self, messages: int) -> list[Page]:
        """Return the pages to show now, if the reply has so many messages.

        At the end, each message that is no longer needed gets a page without text.
        """
        if not self._final:
            return self._growing(messages)
        if self._attachments is None:
            self._attachments = attachments(
                self._final.said or self._final.text,
                pages=lambda part: len(self._pager.cut(part)),
                shows_whole=self._shows_whole,
            )
        texts = self._pager.cut(self._final.text)
        if self._split and self._split[0] < len(texts):
            number, length = self._split
            text = texts[number]
            texts[number : number + 1] = self._pager.split(text, text[:length])
        last = len(texts) - 1
        pages = [Page(i, text, final=True, last=i == last) for i, text in enumerate(texts)]
        if line := self._steps_line:
            pages = [replace(it, steps=line) if line in it.text else it for it in pages]
        end, files = self._final.end, self._attachments
        pages[last:] = [replace(page, end=end, attachments=files) for page in pages[last:]]
        return pages + [Page(i, "", final=True) for i in range(len(texts), messages)]

    def _finish(self, shown: Shown) -> End:
        self._final = shown if self._remembered else replace(shown, end="older")
        self._attachments = None
        return self._final.end

    def _at_end(self, ending: Ending) -> Shown:
        if ending.is_deleted:
            shown = self._final or self._at_end(Ending("stopped"))
            return replace(shown, said="", outcome="stopped")
        if ending.outcome == "done":
            # A new answer may be shorter than what was visible before it.
            end: End = "cut" if ending.notice else ""
            return _finished(self._answer, ending.notice, "done", end)
        answer, previous, is_stop = self._longer, self.previous_answer, ending.outcome == "stopped"
        calls = "" if self._steps.notes else _named(self._unknown)
        unknown = say(NOT_KNOWN, calls=calls) if calls else ""
        if not previous or (is_stop and answer.text.strip()):
            notice = say(STOPPED) if is_stop else ending.notice
            if not _said(answer):
                # People read what was done, even if nothing was said.
                notice = with_notice(self._steps_line, notice)
            return _finished(answer, with_notice(notice, unknown), ending.outcome)
        # The previous answer is remembered already.
        notice = say(STOPPED_ANEW) if is_stop else say(FAILED_ANEW, apology=ending.notice)
        end = "" if is_stop else "failed"
        notice = with_notice(with_notice(self._steps_line, notice), unknown)
        return Shown(text=with_notice(previous, notice), outcome=ending.outcome, end=end)

    def _growing(self, messages: int) -> list[Page]:
        staying = self._text_that_stays
        if staying and not self.silent and not self.consent:
            return []
        *done, last = self._pager.cut((staying or self._answer.text).rstrip()) or [""]
        text, sign = self._with_sign(self._pager.tidied(last))
        pages = [Page(i, text, final=True) for i, text in enumerate(done)]
        if text.strip():
            pages.append(self._growing_page(len(done), text, said=last, sign=sign))
        if self.consent:
            return self._asking(pages, self.consent)
        if staying:
            # Only the last message changes, to show the sign of life.
            return pages[-1:] if len(pages) == messages else []
        if pages:
            pages += [Page(i, PENDING, final=True) for i in range(len(done) + 1, messages)]
        return pages

    def _asking(self, pages: list[Page], consent: ConsentNeeded) -> list[Page]:
        """Return the pages with what a person is asked, on one of its own if it does not fit."""
        question, asks = consent.question, consent.call_id
        if pages and pages[-1].sign:
            return [*pages[:-1], replace(pages[-1], consent=asks)]
        done = [replace(page, final=True, said="") for page in pages]
        return [*done, self._growing_page(len(done), question, sign=question, consent=asks)]

    def _growing_page(
        self, number: int, text: str, *, sign: str, said: str = "", consent: str = ""
    ) -> Page:
        thought = self.thoughts.seconds if self._shows_thoughts else 0
        return Page(
            number, text, final=False, said=said, sign=sign, consent=consent, thought=thought
        )

    @property
    def _steps_line(self) -> str:
        """The calls in the order of their first outcomes, equal ones together."""
        counts: dict[str, int] = {}
        for one in self._steps.notes:
            step = f"{one.what}: {say(one.outcome or UNKNOWN)}"
            counts[step] = counts.get(step, 0) + 1
        listed = [
            say("{step} ({n} times)", step=step, n=n) if n > 1 else step
            for step, n in counts.items()
        ]
        return say(STEPS, steps="; ".join(listed)) if listed else ""

    @property
    def _answer(self) -> Shown:
        """The answer of this attempt since its last start, with the notes below it."""
        # Deltas are joined when the text is read, because a join copies all of it.
        self._deltas = ["".join(self._deltas)]
        unread = self._left_out + self.left_out_by_model
        notes = (
            say(ANSWERED_BY, model=self._model) if self._model else "",
            say(LEFT_OUT, characters=number(unread)) if unread else "",
            say(BEGINNING_LEFT_OUT) if self.is_beginning_left_out else "",
            say(CONTEXT_UNREAD) if self.is_context_unread else "",
            say(CALLED_BEFORE, calls=self._called_before) if self._called_before else "",
            f"({self.files_left_out})" if self.files_left_out else "",
        )
        # Half a character may come before its other half.
        text = whole_characters(self._deltas[0])
        sources = sources_below(text, self._steps.sources)
        below = "\n\n".join(filter(None, (sources, self._steps_line, *notes)))
        return Shown(text=text, below=below, model=self._model)

    @property
    def _longer(self) -> Shown:
        """What was shown before, until this answer is longer: text that people have read stays."""
        answer, before = self._answer, self._shown_before
        if not self._is_behind(answer):
            return answer
        # Its notices are those of now, which tell of more steps.
        return replace(before, below=answer.below or before.below)

    def _is_behind(self, answer: Shown) -> bool:
        before = self._shown_before.text
        return bool(before) and len(before) >= len(answer.text)

    @property
    def _text_that_stays(self) -> str:
        """The text that stays visible until the new one replaces it."""
        answer = self._answer
        if self._is_behind(answer):
            return self._shown_before.text
        return "" if answer.text.strip() else self.previous_answer

    def _make_room(self, text: str, notice: str) -> str:
        """Return a text without its last words, so that a notice fits below."""
        while text and self._pager.measure(with_notice(text, notice)) > self._pager.limit:
            # A long word loses only its end.
            text = text.rstrip()
            words = text[-_LONG_WORD:].split()
            text = text.removesuffix(words[-1] if words else "").rstrip()
        return text

    def _with_sign(self, text: str) -> tuple[str, str]:
        """Return a page's text with the sign of life, if one is due and fits, and the sign."""
        if not self.silent and not self.consent:
            return text, ""
        sign = self._sign
        signed = f"{text}\n\n{sign}" if text.strip() else sign
        # A sign of life does not start a new page.
        return (signed, sign) if self._pager.measure(signed) <= self._pager.limit else (text, "")

    @property
    def _sign(self) -> str:
        if self.consent:
            return self.consent.question
        if doing := self._steps.doing:
            return say(DOING, what=doing)
        if self.reading:
            return say(READING, names=", ".join(f"`{name}`" for name in self.reading))
        if self.is_retried:
            return say(BUSY)
        return say(THINKING if self.thoughts.is_growing else WAITING)


def given_up(earlier: Shown, previous_answer: str, unknown: Sequence[str] = ()) -> Shown:
    """Return what a reply shows if an apology replaces further attempts.

    `unknown` are calls of which nobody knows whether they had an effect.
    """
    draft = Draft(
        limit=sys.maxsize,
        measure=len,
        earlier=earlier,
        previous_answer=previous_answer,
        unknown=unknown,
    )
    draft.end(Ending("dead", GivenUp.apology))
    return draft.shown(earlier.message_ids)


def fitted(shown: Shown, *, limit: int, measure: Measure) -> Shown:
    """Return a reply as its messages can show it; an apology is below what does not fit."""
    draft, ids = Draft(limit=limit, measure=measure, earlier=shown), shown.message_ids
    if 0 < len(ids) < len(pages := draft.pages(len(ids))):
        visible = {page.number: page.text for page in pages[: len(ids)]}
        draft.refuse(GivenUp.apology, visible=visible, last=len(ids) - 1)
    # A previous answer that stays is remembered already.
    cut = draft.shown(ids)
    end = "older" if shown.end == "older" else cut.end
    return replace(cut, said=shown.said and cut.said, outcome=shown.outcome, end=end)


def sources_below(answer: str, found: Sequence[Source]) -> str:
    """Return the pages that an answer names by their numbers; all, if it names none."""
    if not found:
        return ""  # an answer without tools is drawn many times
    named = {int(number) for number in _CITED.findall(answer)}
    chosen = [one for one in found if one.number in named] or found
    lines = [f"[{one.number}] {one.address}" for one in chosen[:_MOST_SOURCES]]
    return "\n".join([say(SOURCES), *lines])


def _named(calls: Sequence[str]) -> str:
    return ", ".join(map(in_code, calls))


def with_notice(text: str, notice: str) -> str:
    """Return a text with a notice below it, outside of an open code block."""
    if not text.strip():
        return notice
    if not notice:
        return text
    # The newline before the notice may complete a line that opens a block.
    return close(f"{close(text)}\n") + f"\n{notice}"


def notices_below(text: str, shown: str) -> str:
    """Return the notices that `with_notice` has added below a text."""
    if not text.strip():
        return shown
    closed = close(f"{close(text)}\n")
    return shown.removeprefix(closed if shown.startswith(closed) else text).strip()


def _said(answer: Shown) -> str:
    return answer.text if answer.text.strip() else ""


def _finished(answer: Shown, notice: str, outcome: Outcome, end: End = "") -> Shown:
    said = _said(answer)
    text = with_notice(with_notice(answer.text, answer.below if said else ""), notice)
    if outcome in ("failed", "dead") or not said:
        end = "failed"
    return replace(answer, text=text, said=said, outcome=outcome, end=end)


@dataclass(slots=True)
class Message:
    """A message of a reply; each attempt has to find out what it shows."""

    id: str
    page: Page | None = None  # what it is confirmed to show
    answer: str | None = None  # the part of the answer in it
    is_read_only: bool = False
    is_deleted: bool = False  # by a person


class Screen:
    """The messages of a reply; the writer reports each write to it.

    `earlier` is what an earlier attempt has shown. `removed` has the ids of the messages that the
    reply has deleted, or is about to delete.
    """

    def __init__(self, earlier: Shown) -> None:
        self.messages = [Message(message_id) for message_id in earlier.message_ids]
        self.removed = dict.fromkeys(earlier.removed)

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of all messages."""
        return tuple(message.id for message in self.messages)

    @property
    def remaining(self) -> tuple[str, ...]:
        """The ids of the messages that were not deleted."""
        return tuple(it.id for it in self.messages if it.page is None or it.page.text)

    @property
    def answer(self) -> dict[int, str]:
        """The part of the answer that this attempt has shown, by page number."""
        return {n: it.answer for n, it in enumerate(self.messages) if it.answer is not None}

    def message_of(self, page: Page) -> Message | None:
        """Return the page's message."""
        return self.messages[page.number] if page.number < len(self.messages) else None

    def needs_post(self, page: Page) -> bool:
        """Whether the page has no message, or is needed and its message is read-only."""
        message = self.message_of(page)
        return message is None or (message.is_read_only and is_needed(page))

    def next_write(self, pages: Sequence[Page], *, last: int | None = None) -> Page | None:
        """Return the page to write next, if any; the one of the number `last` after all others."""
        stale = [it for it in pages if self.needs_post(it) or it != self.messages[it.number].page]
        # Once the first page shows new text, pages that wait for it are marked first.
        has_begun = bool(self.messages) and self.messages[0].answer is not None
        return min(
            stale,
            key=lambda page: (
                not (has_begun and is_pending(page)),
                page.number == last,
                page.number,
            ),
            default=None,
        )

    def unclosed(self, pages: Sequence[Page]) -> list[Page]:
        """Return the final pages that differ from the messages that were not deleted."""
        shown = zip(pages, self.messages, strict=False)
        final = [(replace(page, last=False), it) for page, it in shown if not it.is_deleted]
        return [page for page, message in final if page != message.page]

    def note_posted(self, page: Page, message_id: str) -> None:
        """Note a page in a new message, which may replace a read-only one."""
        if message := self.message_of(page):
            message.id, message.is_read_only = message_id, False
            # The messages of later pages are above it now.
            for later in self.messages[page.number + 1 :]:
                later.is_read_only = True
        else:
            self.messages.append(Message(message_id))
        self.note_edited(page)

    def note_edited(self, page: Page) -> None:
        """Note that the page's message shows it."""
        message = self.messages[page.number]
        message.page, message.answer = page, page.text
        if is_pending(page):
            message.answer = ""
        elif not page.final:
            message.answer = page.text.removesuffix(page.sign).rstrip()


def is_pending(page: Page) -> bool:
    """Whether the page belongs to the previous answer and waits for the new one."""
    return page.text == PENDING and page.final and not page.last


def is_needed(page: Page) -> bool:
    """Whether the page has a part of the answer."""
    return bool(page.text) and not is_pending(page)
