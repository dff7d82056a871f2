"""What a reply has to show at any moment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.domain import Outcome, Page
from bot.guard import whole_characters
from bot.markdown import close
from bot.pages import Measure, Pager

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
_LAST_WORD = re.compile(r"\s*\S{0,20}\s*\Z")  # or the end of a long one


class Draft:
    """The text of a reply, a notice below it at its end, and the pages that they make.

    `older` is what an earlier try has said, or this one before a new start: it stays until the new
    text is longer, or for good when that never comes. `former` is a whole answer that gives way to
    the first new word; it comes back where the new one fails, or is stopped before a word.
    `cuts` tell where, in the one of them that stands there, pages were ended before they were full.
    While it is `silent`, a sign of life stands below the text; once it has `ended`, its pages are
    the final ones.
    """

    def __init__(
        self, *, limit: int, measure: Measure, older: str, former: str, cuts: Sequence[int]
    ) -> None:
        self.silent = False
        self.ended = False
        self.outcome: Outcome = "done"
        self._limit = limit
        self._measure = measure
        self._pager = Pager(limit=limit, measure=measure)
        self._pager.recall(older or former, cuts)
        self._older = older
        self._former = former
        self._text = ""
        self._model = self._older_model = ""  # who says them, where not the chosen model
        self._left_out = self._older_left_out = 0  # characters of the question that went unread
        self._notice = ""
        self._is_back = False  # the former answer

    @property
    def said(self) -> str:
        """What the model said; empty where the former answer is back."""
        return "" if self._is_back else whole_characters(self._text)

    @property
    def read(self) -> str:
        """What people have read of the text so far, or will when the next write is through."""
        return self._older if self._is_older else self.said

    @property
    def whole(self) -> str:
        """All that is to stand there at the end."""
        text = self._former if self._is_back else self.said
        by = "" if self._is_back or not text.strip() else self._model
        answered = with_notice(text, ANSWERED_BY.format(model=by) if by else "")
        unread = 0 if self._is_back or not text.strip() else self._left_out
        read = with_notice(answered, LEFT_OUT.format(characters=unread) if unread else "")
        return with_notice(read, self._notice)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where in the text that stands there pages were ended before they were full."""
        return self._pager.cuts(self.whole if self.ended else self._stands or self.said)

    @property
    def replaces(self) -> bool:
        """Whether there is a former answer."""
        return bool(self._former)

    @property
    def begun(self) -> bool:
        """Whether anything was added, since the last new start if there was one."""
        return bool(self._text)

    def add(self, delta: str) -> None:
        """Let the text grow."""
        self._text += delta
        self.silent = False

    def end_page(self) -> None:
        """Let the page that grows end with what it has by now, and another follow."""
        self._pager.end_page(self._stands or self.said)

    def start(self, model: str) -> None:
        """Let the text begin anew, in the words of this model; "" is the chosen one."""
        self._keep_older()
        self._older, self._older_model = self._text, self._model
        self._older_left_out = self._left_out
        self._text, self._model, self._left_out = "", model, 0

    def leave_out(self, characters: int) -> None:
        """Tell below the text how much of the question the model has not read."""
        self._left_out = characters

    def cut(self, notice: str) -> None:
        """End a text that is good as far as it goes."""
        self._notice = notice

    def stop(self) -> None:
        """End the text because a person wants no more of it."""
        self._keep_older()
        self._is_back = self.replaces and not self._text.strip()
        self.outcome, self._notice = "stopped", STOPPED_ANEW if self._is_back else STOPPED

    def leave(self) -> None:
        """End the text, unless it has ended, because a person deleted some of it."""
        if not self.ended:
            self.stop()

    def fail(self, apology: str) -> None:
        """End the text because no more comes."""
        self._keep_older()
        self._is_back = self.replaces
        self.outcome = "failed"
        self._notice = FAILED_ANEW.format(apology=apology) if self._is_back else apology

    def refuse(self, stands: dict[int, str], last: int, apology: str) -> str:
        """Have said what stands on the pages, by number, and no more; return the last page's text.

        Below its words stands the apology, for which the last of them make room.
        """
        stands = stands or dict(enumerate(self._pager.cut(self._older)))
        if last in stands:
            stands[last] = self._above(apology, stands[last])
        self._text, self._model, self._left_out = "\n".join(stands.values()), "", 0
        self.outcome, self._notice = "failed", apology
        return with_notice(stands.get(last, ""), apology)

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
    def _stands(self) -> str:
        """The text that stays on the screen until there is more of this one."""
        if self._is_older:
            return self._older
        return "" if self._text.strip() else self._former

    @property
    def _is_older(self) -> bool:
        return not self.ended and 0 < len(self._older) >= len(self._text)

    def _keep_older(self) -> None:
        # What people have read already stays.
        if len(self._older) > len(self._text):
            self._text, self._model = self._older, self._older_model
            self._left_out = self._older_left_out

    def _above(self, notice: str, text: str) -> str:
        """Return a text without as many of its last words as leave no room for a notice below."""
        while text and self._measure(with_notice(text, notice)) > self._limit:
            text = _LAST_WORD.sub("", text, count=1)
        return text

    def _signed(self, shown: str) -> str:
        if not self.silent:
            return shown
        signed = f"{shown}\n\n{WAITING}" if shown.strip() else WAITING
        # A sign is not worth a page of its own.
        return signed if self._measure(signed) <= self._limit else shown


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
