"""What a reply should show at any moment, and what its messages show."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from bot.domain import End, Outcome, Page, Shown
from bot.errors import GivenUp
from bot.reply.pages import Measure, Pager
from bot.text.markdown import close
from bot.text.sanitize import whole_characters

STOPPED = "(Stopped.)"
STOPPED_ANEW = "(Stopped: the earlier answer stays.)"
FAILED_ANEW = "(There is no new answer, so the earlier one stays. {apology})"
WAITING = "(Still thinking…)"
BUSY = "(The model is busy. I keep trying.)"
# On a page of the replaced answer that the new one has not reached.
PENDING = "…"
# Below an answer of another model than the chosen one.
ANSWERED_BY = "(Answered by `{model}`.)"
# Below an answer to a question that was too long to be read whole.
LEFT_OUT = (
    "(Your message is too long for me to read at once. I read its beginning and its end, and left"
    " out {characters:,} characters between them.)"
)
# Below the first answer for which the conversation was too long.
BEGINNING_LEFT_OUT = "(We have talked for so long that I no longer see how our conversation began.)"
# Below an answer for which the platform let nobody read the thread.
CONTEXT_UNREAD = "(I could not read all the messages before yours.)"
_LONG_WORD = 20  # characters


@dataclass(frozen=True, slots=True)
class Done:
    """The model has finished; `notice` is set if its answer was cut."""

    notice: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A person pressed Stop."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model failed."""

    apology: str
    outcome: Outcome = "failed"


@dataclass(frozen=True, slots=True)
class Deleted:
    """A person deleted a message of the reply, which is then not remembered."""


Ending = Done | Stopped | Failed | Deleted


@dataclass(frozen=True, slots=True)
class _Answer:
    """A model's text, and the notes below it."""

    text: str = ""
    footer: str = ""
    model: str = ""


class Draft:
    """The text of a reply, and the pages that it makes.

    `earlier` is the reply of the previous attempt. Its text stays visible until the new one is
    longer, or permanently if that never happens; so does the text before a new start. If it has an
    outcome, it is the whole reply. `replaced_answer` is an earlier answer to the same question: the
    first new text replaces it, and it is restored if the new answer fails or is stopped before
    that. `left_out` is how many characters the question has lost before the model reads it. While
    the draft is `silent`, a sign of life is below the text. A reply that is not `remembered` ends
    without buttons.
    """

    def __init__(
        self,
        *,
        limit: int,
        measure: Measure,
        earlier: Shown,
        replaced_answer: str = "",
        left_out: int = 0,
        remembered: bool = True,
    ) -> None:
        self.earlier = earlier
        self.silent = False
        self.is_retried = False  # the model has failed since the last text, and is asked again
        # The previous attempt ended without any text of the model.
        self.is_apology = bool(earlier.outcome and earlier.text and not earlier.said)
        self._limit = limit
        self._measure = measure
        self._remembered = remembered
        self._pager = Pager(limit=limit, measure=measure)
        # Text that was saved before a first post that failed is not visible.
        said = earlier.said if earlier.message_ids else ""
        self._previous = _Answer(said, earlier.below, earlier.model)
        self._replaced_answer = replaced_answer
        self._deltas: list[str] = []
        self._half = ""  # of a character, at the end of the last delta
        self._model = ""
        self._left_out, self._model_left_out = left_out, 0  # characters of the question
        self._beginning = self._unread = ""
        self._final: Shown | None = earlier if earlier.outcome else None
        self._split: tuple[int, str] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the text is final."""
        return self._final is not None

    @property
    def split_page(self) -> int | None:
        """The number of a page whose rest is shown by the next ones, so that it can wait."""
        return self._split[0] if self._split else None

    @property
    def replaces(self) -> bool:
        """Whether the answer replaces an earlier one."""
        return bool(self._replaced_answer)

    @property
    def has_begun(self) -> bool:
        """Whether there is text of the model since its last start."""
        return bool(self._answer.text)

    def shown(self, message_ids: Sequence[str]) -> Shown:
        """Return what these messages show, or will show after the next write."""
        if self._final:
            return replace(self._final, message_ids=tuple(message_ids))
        answer = self._longer
        said = answer.text if answer.text.strip() else ""
        return Shown(tuple(message_ids), said, said, answer.footer, model=answer.model)

    def add(self, delta: str) -> None:
        """Add to the text. Half a character is held back until its other half arrives."""
        delta = self._half + delta
        self._half = delta[-1:] if "\ud800" <= delta[-1:] <= "\udbff" else ""
        self._deltas.append(whole_characters(delta[: len(delta) - len(self._half)]))
        self.silent = self.is_retried = False

    def start(self, model: str) -> None:
        """Restart the text, by this model; "" is the chosen one."""
        self._previous = self._longer
        self._deltas, self._half = [], ""
        self._model_left_out, self._beginning = 0, ""
        self._model = model

    def leave_out(self, characters: int) -> None:
        """Note below the text how much of the question the model has not read."""
        self._model_left_out = characters

    def leave_out_beginning(self) -> None:
        """Note below the text that the model no longer reads the beginning."""
        self._beginning = BEGINNING_LEFT_OUT

    def leave_out_context(self) -> None:
        """Note below the text that the messages before the question could not be read."""
        self._unread = CONTEXT_UNREAD

    def end(self, ending: Ending) -> None:
        """End the text. A failed write or a deletion may end it again."""
        self._final = self._without_actions(self._at_end(ending))

    def refuse(self, apology: str, *, visible: Mapping[int, str], last: int) -> list[Page]:
        """End the text with its `visible` pages, by number, because the platform refuses more.

        Return the pages that can show the apology, in the order to try them: the last page without
        its last words, if there is one; then a new page.
        """
        shown = self.shown(())
        footer = shown.below if visible else self._previous.footer
        notices = shown.text[len(shown.said) :]
        texts = {number: text.removesuffix(notices) for number, text in visible.items()}
        texts = texts or dict(enumerate(self._pager.cut(self._previous.text)))
        notice = with_notice(footer if any(texts.values()) else "", apology)
        if self._measure(notice) > self._limit:
            notice = apology
        if last in texts:
            texts[last] = self._make_room(texts[last], notice)
        answer = _Answer("\n".join(texts.values()), footer)
        self._final = self._without_actions(_finished(answer, apology, "failed"))
        alone = Page(last + 1, notice, final=True, last=True, end=self._final.end)
        closed = with_notice(texts.get(last, ""), notice)
        return [replace(alone, number=last, text=closed), alone] if last >= 0 else [alone]

    def split(self, page: Page) -> bool:
        """End a page of the final text at the words that it showed; False if it cannot.

        A saved text does not know this: who writes it again writes whole pages.
        """
        pages, self._split = len(self.pages(0)), (page.number, page.said)
        if len(self.pages(0)) == pages:
            self._split = None
        return self._split is not None

    def pages(self, messages: int) -> list[Page]:
        """Return the pages to show now, if the reply has so many messages.

        At the end, each message that is no longer needed gets a page without text.
        """
        if not self._final:
            return self._growing(messages)
        texts = self._pager.cut(self._final.text)
        if self._split and self._split[0] < len(texts):
            number, shown = self._split
            texts[number : number + 1] = self._pager.split(texts[number], shown)
        last = len(texts) - 1
        pages = [Page(i, text, final=True, last=i == last) for i, text in enumerate(texts)]
        pages[last:] = [replace(page, end=self._final.end) for page in pages[last:]]
        return pages + [Page(i, "", final=True) for i in range(len(texts), messages)]

    def _without_actions(self, shown: Shown) -> Shown:
        """Return a reply without buttons, if it is not remembered."""
        return shown if self._remembered else replace(shown, end="older")

    def _at_end(self, ending: Ending) -> Shown:
        answer, replaced = self._longer, self._replaced_answer
        match ending:
            case Done():
                # A new answer may be shorter than what was visible before it.
                end: End = "cut" if ending.notice else ""
                return _finished(self._answer, ending.notice, "done", end)
            # The replaced answer is remembered already.
            case Stopped() if replaced and not answer.text.strip():
                return Shown(text=with_notice(replaced, STOPPED_ANEW), outcome="stopped")
            case Stopped():
                return _finished(answer, STOPPED, "stopped")
            case Failed() if replaced:
                notice = FAILED_ANEW.format(apology=ending.apology)
                text = with_notice(replaced, notice)
                return Shown(text=text, outcome=ending.outcome, end="failed")
            case Failed():
                return _finished(answer, ending.apology, ending.outcome)
            case Deleted():
                shown = self._final or self._at_end(Stopped())
                return replace(shown, said="", outcome="stopped")

    def _growing(self, messages: int) -> list[Page]:
        unchanged = self._unchanged
        if unchanged and not self.silent:
            return []
        *done, last = self._pager.cut((unchanged or self._answer.text).rstrip()) or [""]
        tidied = self._with_sign(self._pager.tidied(last))
        pages = [Page(i, text, final=True) for i, text in enumerate(done)]
        if tidied.strip():
            pages.append(Page(len(done), tidied, final=False, said=last))
        if unchanged:
            # Only the sign of life is new.
            return pages[-1:] if len(pages) == messages else []
        if pages:
            pages += [Page(i, PENDING, final=True) for i in range(len(done) + 1, messages)]
        return pages

    @property
    def _answer(self) -> _Answer:
        """The answer of this attempt since its last start."""
        # Deltas are joined when the text is read, because a join copies all of it.
        self._deltas = ["".join(self._deltas)]
        by = ANSWERED_BY.format(model=self._model) if self._model else ""
        unread = self._left_out + self._model_left_out
        left_out = LEFT_OUT.format(characters=unread) if unread else ""
        notes = filter(None, (by, left_out, self._beginning, self._unread))
        return _Answer(self._deltas[0], reduce(with_notice, notes, ""), self._model)

    @property
    def _longer(self) -> _Answer:
        """The previous answer until this one is longer: text that people have read stays."""
        answer, previous = self._answer, self._previous
        return previous if 0 < len(previous.text) >= len(answer.text) else answer

    @property
    def _unchanged(self) -> str:
        """The text that stays visible until the new one replaces it."""
        if self._longer is self._previous:
            return self._previous.text
        return "" if self._answer.text.strip() else self._replaced_answer

    def _make_room(self, text: str, notice: str) -> str:
        """Return a text without its last words, so that a notice fits below."""
        while text and self._measure(with_notice(text, notice)) > self._limit:
            # A long word loses only its end.
            text = text.rstrip()
            words = text[-_LONG_WORD:].split()
            text = text.removesuffix(words[-1] if words else "").rstrip()
        return text

    def _with_sign(self, text: str) -> str:
        if not self.silent:
            return text
        sign = BUSY if self.is_retried else WAITING
        signed = f"{text}\n\n{sign}" if text.strip() else sign
        # A sign of life does not start a new page.
        return signed if self._measure(signed) <= self._limit else text


def given_up(earlier: Shown, replaced_answer: str) -> Shown:
    """Return what a reply shows if an apology replaces further attempts."""
    # The pages are cut when they are written.
    draft = Draft(limit=sys.maxsize, measure=len, earlier=earlier, replaced_answer=replaced_answer)
    draft.end(Failed(GivenUp.apology, "dead"))
    return draft.shown(earlier.message_ids)


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


def _finished(answer: _Answer, notice: str, outcome: Outcome, end: End = "") -> Shown:
    said = answer.text if answer.text.strip() else ""
    text = with_notice(with_notice(answer.text, answer.footer if said else ""), notice)
    if outcome in ("failed", "dead") or not said:
        end = "failed"
    return Shown(
        text=text, said=said, below=answer.footer, outcome=outcome, end=end, model=answer.model
    )


class Screen:
    """The messages of a reply, and the page that each is confirmed to show.

    The writer reports each write to it. `earlier` is what an earlier attempt has shown.
    """

    def __init__(self, earlier: Shown) -> None:
        self._ids = list(earlier.message_ids)
        # The ids of the messages that the reply has deleted, or is about to delete.
        self.removed = dict.fromkeys(earlier.removed)
        self._confirmed: list[Page | None] = [None] * len(self._ids)
        self._answer: dict[int, str] = {}
        self._read_only: set[int] = set()  # numbers of pages whose message is read-only
        self._deleted: set[int] = set()  # numbers of pages whose message a person deleted

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of all messages."""
        return tuple(self._ids)

    @property
    def remaining(self) -> tuple[str, ...]:
        """The ids of the messages that were not deleted."""
        shown = zip(self._ids, self._confirmed, strict=True)
        return tuple(message_id for message_id, page in shown if page is None or page.text)

    @property
    def answer(self) -> dict[int, str]:
        """The part of the answer that this attempt has shown, by page number."""
        return dict(self._answer)

    def message_of(self, page: Page) -> str | None:
        """Return the id of the page's message."""
        return self._ids[page.number] if page.number < len(self._ids) else None

    def growing(self, page: Page) -> Page | None:
        """Return what the page's message shows if that is text of the model that still grows."""
        shown = self._confirmed[page.number] if page.number < len(self._ids) else None
        return shown if shown and shown.said and page.text else None

    def needs_post(self, page: Page) -> bool:
        """Whether the page has no message, or is needed and its message is read-only."""
        read_only = page.number in self._read_only and is_needed(page)
        return page.number >= len(self._ids) or read_only

    def next_write(self, pages: Sequence[Page], *, last: int | None = None) -> Page | None:
        """Return the page to write next; None if all messages show their pages.

        The page of the number `last` waits for all others.
        """
        stale = [it for it in pages if self.needs_post(it) or it != self._confirmed[it.number]]
        # Once the first page shows new text, pages that wait for it are marked first.
        return min(
            stale,
            key=lambda page: (
                not (is_pending(page) and 0 in self._answer),
                page.number == last,
                page.number,
            ),
            default=None,
        )

    def unclosed(self, pages: Sequence[Page]) -> list[Page]:
        """Return the final pages that differ from the messages that were not deleted."""
        there = set(range(len(self._ids))) - self._deleted
        final = [replace(page, last=False) for page in pages if page.number in there]
        return [page for page in final if page != self._confirmed[page.number]]

    def note_posted(self, page: Page, message_id: str) -> None:
        """Note a page in a new message, which may replace a read-only one."""
        if page.number < len(self._ids):
            self._ids[page.number] = message_id
            self._read_only.discard(page.number)
            # The messages of later pages are above it now.
            self._read_only.update(range(page.number + 1, len(self._ids)))
        else:
            self._ids.append(message_id)
        self.note_edited(page)

    def note_edited(self, page: Page) -> None:
        """Note that the page's message shows it."""
        self._confirmed[page.number :] = [page, *self._confirmed[page.number + 1 :]]
        self._answer[page.number] = answer_on(page)

    def note_unknown(self, page: Page) -> Page | None:
        """Note that the page's message is unknown until the platform has answered.

        Return what it has shown, if that is known.
        """
        before, self._confirmed[page.number] = self._confirmed[page.number], None
        return before

    def note_removing(self, page: Page) -> None:
        """Note that the page's message will be deleted."""
        self.removed[self._ids[page.number]] = None

    def note_read_only(self, page: Page) -> None:
        """Note that the page's message is read-only."""
        self._read_only.add(page.number)

    def note_deleted(self, page: Page) -> None:
        """Note that a person deleted the page's message."""
        self._deleted.add(page.number)


def is_pending(page: Page) -> bool:
    """Whether the page belongs to the replaced answer and waits for the new one."""
    return page.text == PENDING and page.final and not page.last


def is_needed(page: Page) -> bool:
    """Whether the page has a part of the answer."""
    return bool(page.text) and not is_pending(page)


def answer_on(page: Page) -> str:
    """Return the part of the answer that a page shows."""
    if is_pending(page):
        return ""
    if page.final:
        return page.text
    return page.text.removesuffix(WAITING).removesuffix(BUSY).rstrip()
