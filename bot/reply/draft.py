"""What a reply has to show at any moment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from bot.domain import Outcome, Page, Shown
from bot.errors import AnswerCut, GivenUp
from bot.reply.pages import Measure, Pager
from bot.text.markdown import close
from bot.text.sanitize import whole_characters

STOPPED = "(Stopped.)"
STOPPED_ANEW = "(Stopped: the earlier answer stays.)"
FAILED_ANEW = "(There is no new answer, so the earlier one stays. {apology})"
WAITING = "(Still thinking…)"
# On a page of the former answer that the new one has not come to.
PENDING = "…"
# Below an answer that is not the chosen model's.
ANSWERED_BY = "(Answered by `{model}`.)"
# Below an answer to a question that was too long to be read whole.
LEFT_OUT = (
    "(Your message is longer than I can read at once: I read its beginning and its end, without"
    " the {characters:,} characters between them.)"
)
_LONG_WORD = 20  # characters


class Draft:
    """The text of a reply, a notice below it at its end, and the pages that they make.

    `left` is what an earlier try has shown: it stays until the new text is longer, or for good when
    that never comes, as does what this try has said before a new start. One with an outcome is the
    whole text already. `former` is a whole answer that gives way to the first new word; it comes
    back where the new one fails, or is stopped before a word.
    While it is `silent`, a sign of life stands below the text; once it has `ended`, its pages are
    the final ones.
    """

    def __init__(self, *, limit: int, measure: Measure, left: Shown, former: str) -> None:
        self.silent = False
        self.ended = bool(left.outcome)
        self.outcome: Outcome = left.outcome or "done"
        self._limit = limit
        self._measure = measure
        self._pager = Pager(limit=limit, measure=measure)
        # What was saved before a first post that failed stands nowhere.
        self._older = left.said if left.pages else ""
        self._older_below = left.below  # what a person has to know of it
        self._former = former
        self._deltas = [left.said if left.outcome else ""]
        self._by = left.below if left.outcome else ""  # who says it, where not the chosen model
        self._unread = ""  # how much of the question it was said without
        self._mended = "", ""  # the text that was said, and that text in whole characters
        self._notice = ""
        self._known = left.text if left.outcome else ""  # the whole text, from an earlier try
        self._is_back = False  # the former answer
        self._is_left = False  # by the person who deleted some of it

    @property
    def said(self) -> str:
        """What the model said; empty where there is nothing to remember (see Shown)."""
        return "" if self._is_back or self._is_left else self._sound

    @property
    def whole(self) -> str:
        """All that is to stand there at the end."""
        if self._known:
            return self._known
        text = self._former if self._is_back else self._sound
        below = "" if self._is_back or not text.strip() else self._below
        return with_notice(with_notice(text, below), self._notice)

    def shown(self, pages: Sequence[str]) -> Shown:
        """Return what people have read on these pages, or will when the next write is through."""
        older = self._is_older
        read = self._older if older else self.said
        said = read if read.strip() else ""
        return Shown(
            pages=tuple(pages),
            text=self.whole if self.ended else said,
            said=said,
            below=self._older_below if older else self._below,
            outcome=self.outcome if self.ended else "",
        )

    @property
    def replaces(self) -> bool:
        """Whether there is a former answer."""
        return bool(self._former)

    @property
    def is_notice(self) -> bool:
        """Whether an earlier try had come to the end without a new word of the model."""
        return bool(self._known) and not self.said

    @property
    def begun(self) -> bool:
        """Whether anything was added, since the last new start if there was one."""
        return bool(self._text)

    def add(self, delta: str) -> None:
        """Let the text grow."""
        self._deltas.append(delta)
        self.silent = False

    def start(self, model: str) -> None:
        """Let the text begin anew, in the words of this model; "" is the chosen one."""
        self._keep_older()
        self._older, self._older_below = self._text, self._below
        self._text, self._unread = "", ""
        self._by = ANSWERED_BY.format(model=model) if model else ""

    def leave_out(self, characters: int) -> None:
        """Tell below the text how much of the question the model has not read."""
        self._unread = LEFT_OUT.format(characters=characters)

    def cut(self, notice: str) -> None:
        """End a text that is good as far as it goes."""
        self._notice = notice

    def stop(self) -> None:
        """End the text because a person wants no more of it."""
        self._keep_older()
        self._is_back = self.replaces and not self._text.strip()
        self.outcome, self._notice = "stopped", STOPPED_ANEW if self._is_back else STOPPED

    def leave(self) -> None:
        """End the text, with nothing to remember, because a person deleted some of it."""
        if not self.ended:
            self.stop()
        self.outcome, self._is_left, self.ended = "stopped", True, True

    def fail(self, apology: str, outcome: Outcome = "failed") -> None:
        """End the text because no more comes."""
        self._keep_older()
        self._is_back = self.replaces
        self._known = ""
        self.outcome = outcome
        self._notice = FAILED_ANEW.format(apology=apology) if self._is_back else apology

    def refuse(self, stands: dict[int, str], last: int, apology: str) -> tuple[str, str]:
        """Have said what stands on the pages, by number, and no more, with an apology below it.

        Return the last page's text, whose last words make room for all that is below, and that
        alone, for where this page cannot be written either.
        """
        if not stands or self._is_older:
            self._by, self._unread = self._older_below, ""
        stands = {n: self._words(text) for n, text in stands.items()}
        stands = stands or dict(enumerate(self._pager.cut(self._older)))
        alone = with_notice(self._below if any(stands.values()) else "", apology)
        if self._measure(alone) > self._limit:
            alone = apology
        if last in stands:
            stands[last] = self._above(alone, stands[last])
        self._text = "\n".join(stands.values())
        self.outcome, self._notice, self._known = "failed", apology, ""
        self.ended = True
        return with_notice(stands.get(last, ""), alone), alone

    def pages(self, standing: int) -> list[Page]:
        """Return what the pages are to show now, of which so many stand there already.

        At the end one without text takes the place of each that is not needed any more.
        """
        return self._final(standing) if self.ended else self._growing(standing)

    def _growing(self, standing: int) -> list[Page]:
        stands = self._stands
        if stands and not self.silent:
            return []
        *done, last = self._pager.cut((stands or self.said).rstrip()) or [""]
        shown = self._signed(self._pager.tidied(last))
        pages = [Page(i, text, final=True) for i, text in enumerate(done)]
        if shown.strip():
            pages.append(Page(len(done), shown, final=False, said=last))
        if stands:
            # The sign alone is new.
            return pages[-1:] if len(pages) == standing else []
        if pages:
            pages += [Page(i, PENDING, final=True) for i in range(len(done) + 1, standing)]
        return pages

    def _final(self, standing: int) -> list[Page]:
        texts = self._pager.cut(self.whole)
        last = len(texts) - 1
        pages = [Page(i, text, final=True, last=i == last) for i, text in enumerate(texts)]
        return pages + [Page(i, "", final=True) for i in range(len(texts), standing)]

    @property
    def _text(self) -> str:
        """What this try has said. Deltas are joined when it is read, for a join copies it all."""
        if len(self._deltas) > 1:
            self._deltas = ["".join(self._deltas)]
        return self._deltas[0]

    @_text.setter
    def _text(self, text: str) -> None:
        self._deltas = [text]

    @property
    def _sound(self) -> str:
        """The same in whole characters, made once: many halves of pairs take long to mend."""
        text, sound = self._mended
        if text is not self._text:
            sound = whole_characters(self._text)
            self._mended = self._text, sound
        return sound

    @property
    def _stands(self) -> str:
        """The text that stays on the screen until there is more of this one."""
        if self._is_older:
            return self._older
        return "" if self._text.strip() else self._former

    @property
    def _is_older(self) -> bool:
        return not self.ended and 0 < len(self._older) >= len(self._text)

    @property
    def _below(self) -> str:
        return with_notice(self._by, self._unread)

    def _keep_older(self) -> None:
        # What people have read already stays.
        if len(self._older) > len(self._text):
            self._text, self._by, self._unread = self._older, self._older_below, ""

    def _words(self, text: str) -> str:
        """Return what a page shows of the answer, without what stands below that at its end."""
        return text.removesuffix(self.whole[len(self.said) :]) if self.ended else text

    def _above(self, notice: str, text: str) -> str:
        """Return a text without as many of its last words as leave no room for a notice below."""
        while text and self._measure(with_notice(text, notice)) > self._limit:
            text = _without_last_word(text)
        return text

    def _signed(self, shown: str) -> str:
        if not self.silent:
            return shown
        signed = f"{shown}\n\n{WAITING}" if shown.strip() else WAITING
        # A sign is not worth a page of its own.
        return signed if self._measure(signed) <= self._limit else shown


def given_up(left: Shown, former: str) -> Shown:
    """Return what a reply shows when an apology takes the place of further tries."""
    # Pages are cut by whoever writes them.
    draft = Draft(limit=sys.maxsize, measure=len, left=left, former=former)
    draft.fail(GivenUp.apology, "dead")
    draft.ended = True
    return draft.shown(left.pages)


def shortened(shown: Shown, longest: int) -> Shown:
    """Return what was shown, without what goes beyond the longest answer, in characters.

    Another version may have left any length, and each page of it would be written once more.
    """
    if len(shown.text) <= longest:
        return shown
    text = shown.text[:longest]
    return replace(
        shown,
        text=with_notice(text, AnswerCut.apology) if shown.outcome else text,
        said=shown.said[:longest],
    )


def _without_last_word(text: str) -> str:
    """Return a text without its last word, or without the end of a long one."""
    text = text.rstrip()
    words = text[-_LONG_WORD:].split()
    return text.removesuffix(words[-1] if words else "").rstrip()


def with_notice(text: str, notice: str) -> str:
    """Return a text with a notice below it, outside of any code block that the text left open."""
    if not text.strip():
        return notice
    if not notice:
        return text
    # The newline before the notice may be what opens a block.
    return close(f"{close(text)}\n") + f"\n{notice}"


def is_pending(page: Page) -> bool:
    """Tell a page of the former answer that waits for the new one."""
    return page.text == PENDING and page.final and not page.last


def is_needed(page: Page) -> bool:
    """Tell a page that holds something of the answer."""
    return bool(page.text) and not is_pending(page)


def words_of(page: Page) -> str:
    """Return what a page shows of the answer itself."""
    if is_pending(page):
        return ""
    return page.text if page.final else page.text.removesuffix(WAITING).rstrip()
