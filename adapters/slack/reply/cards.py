"""The cards of an answer's calls of tools, which a stream shows as a folded plan."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal, TypeVar

from adapters.slack.errors import code_of
from adapters.slack.reply.status import NO_MARKUP
from adapters.slack.workspace import Workspace
from bot.domain import UNKNOWN, WAITS_FOR_ANSWER, WAITS_FOR_CONSENT, Page, StepNote, StepNotes
from bot.errors import WriteRefused
from bot.languages import say
from bot.text.markdown import open_fence, settled
from bot.text.sanitize import one_line

log = logging.getLogger(__name__)
_T = TypeVar("_T")

Json = dict[str, object]
Stage = Literal["start", "growth", "end"]  # of a stream

_CARDS = "cards"  # what Slack may refuse
# Guess: what Slack answers where it knows no cards, no plan, or no suspended session.
_REFUSED = {"invalid_arguments", "invalid_chunks"}
# Live probes by others (openclaw/openclaw, pull request 143882): 50 rows, and with their titles a
# stream has about 10,600 bytes. Our pages have 4,000.
_MOST = 20
_MOST_TITLE = 80  # characters
_PLAN = "Steps"
# docs: Task card block. Other outcomes are failures. Guess: a pending card stays so at the end.
_STATUS = {
    "": "in_progress",
    WAITS_FOR_CONSENT: "pending",
    WAITS_FOR_ANSWER: "pending",
    "done": "complete",
}


class Cards:
    """The cards of one reply; each call has its own, in one of the reply's streams.

    Slack replaces the title and the status of a card that it knows by the call's id (openclaw,
    pull request 125168). The first card of a stream ends the block of text above it (the same,
    pull request 122976; guess: of a plan, too), so it waits until the text is whole there, or for
    the end.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.steps = StepNotes(())
        self._workspace = workspace
        self._shown: dict[str, Json] = {}  # as streams show them, by the call's id
        self._are_begun = False  # in the newest stream

    @property
    def are_possible(self) -> bool:
        """Whether Slack has not refused cards lately."""
        return not self._workspace.is_refused(_CARDS)

    def are_news(self, page: Page) -> bool:
        """Whether a growing page can show a card, or what has become of it."""
        return self.are_possible and bool(self._news(page, "growth"))

    def tell_all(self) -> bool:
        """Whether the cards show all calls, when the reply has ended."""
        return self.are_possible and len(self.steps.notes) <= _MOST

    def forget(self) -> None:
        """Note that an update has taken the cards away."""
        self._shown.clear()

    async def written(
        self, page: Page, write: Callable[[list[Json] | None], Awaitable[_T]], *, at: Stage
    ) -> _T:
        """Write a page of a stream and the chunks of its cards.

        They are None if Slack refuses them: such a call is repeated at once. Raises SurfaceError.
        """
        if not self.are_possible:
            return await write(None)
        news = self._news(page, at)
        try:
            answer = await write(news)
        except WriteRefused as error:
            if code_of(error) not in _REFUSED:
                raise
            log.info("Slack refused cards, answers have none for a while: %s", error)
            self._workspace.refuse(_CARDS)
            return await write(None)
        self._shown |= {str(one["id"]): one for one in news if "id" in one}
        self._are_begun = bool(news) or (self._are_begun and at != "start")
        return answer

    def _news(self, page: Page, at: Stage) -> list[Json]:
        if at == "growth" and not (self._are_begun or _is_whole(page)):
            return []
        cards, ends = [], at == "end"
        for note in self.steps.notes[:_MOST]:
            card = _card(replace(note, outcome=note.outcome or UNKNOWN) if page.last else note)
            if ends and card["status"] == "in_progress":
                # The next stream shows it, too. A card that is left so turns red (vercel/chat,
                # pull request 917).
                if note.call_id not in self._shown:
                    continue
                card["status"] = "complete"
            if card != self._shown.get(note.call_id):
                cards.append(card)
        title = say(_PLAN) if ends else _title(self.steps.doing) or say(_PLAN)
        return [{"type": "plan_update", "title": title}, *cards] if cards else []


def _is_whole(page: Page) -> bool:
    """Whether a call has interrupted the text of a page, and no markup is open there."""
    return bool(page.sign) and settled(page.said) == page.said and not open_fence(page.said)


def _card(note: StepNote) -> Json:
    """Return the chunk of a call (docs: chat.appendStream, "task_update chunks")."""
    status = _STATUS.get(note.outcome, "error")
    is_said = status in ("in_progress", "complete")
    title = _title(note.what if is_said else f"{note.what}: {say(note.outcome)}")
    return {"type": "task_update", "id": note.call_id, "title": title, "status": status}


def _title(text: str) -> str:
    """Return a title: plain text (docs: Task card block), in which no address acts."""
    said = one_line(text).translate(NO_MARKUP).replace("`", "").replace("://", ": ")
    return said if len(said) <= _MOST_TITLE else f"{said[: _MOST_TITLE - 1].rstrip()}…"
