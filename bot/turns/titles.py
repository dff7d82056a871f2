"""Has the model write titles for conversations, after their first answers and behind all others."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sized
from contextlib import aclosing

from bot.access.quotas import Prices
from bot.concurrency import running
from bot.domain import Exchange, Message, Preferences, Retrying, Start, ThreadKey
from bot.errors import ModelError, StoreUnavailable
from bot.ports import Model, Untitled
from bot.text.sanitize import one_line, whole_characters
from bot.tokens.counters import Meter
from bot.turns.queue import TurnQueue
from bot.turns.records import History, write_bill
from bot.turns.script import person_key

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
TITLE_SECONDS = 30.0  # for one title; less than that for which a platform's `claim` holds
_LATER_SECONDS = 2.0
_OLDEST_SECONDS = 24 * 3600.0  # of a first question: then nobody misses a title any more
_SHOWN = 1500  # characters of the question and of the answer
_TOKENS = 1000  # with which a model also thinks
_READ = 400  # characters after which it is no title
_LONGEST = 60  # characters
_REQUEST = (
    "Write a title for the conversation below: at most six words, in the language of the question,"
    " without quotation marks. Reply with the title alone.\n\nQuestion:\n{}\n\nAnswer:\n{}"
)
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)|\[THINK\].*?(\[/THINK\]|\Z)", re.DOTALL)
_MARKS = " \t*_`\"'~«»「」『』\u2018\u2019\u201a\u201c\u201d\u201e\u2039\u203a"
_LABEL = re.compile(
    r"(title|titel|titre|título|titolo|タイトル|标题|標題)[*_]*\s*[:\uff1a]", re.IGNORECASE
)
# What a model says instead of a title.
_REFUSAL = re.compile(
    r"(i['\u2019]?m |i am )?(very |so )?(sorry|unable)|i (can|do) ?(no|['\u2019])t|as an ai"
    r"|es tut mir leid|tut mir leid|entschuldigung|ich kann|(je suis )?désolée?|je ne peux"
    r"|lo siento|no puedo|申し訳|すみません",
    re.IGNORECASE,
)


class TitleMaker:
    """Background task of a worker that writes the titles which its platforms want, one at a time.

    It begins one only while the worker answers at most `beside` turns, and gives way to each that
    the worker takes: `make_way` says so. If the process dies, another one begins the title again,
    once the platform's claim has ended. What the model uses counts as tokens of the person and as
    no question.
    """

    def __init__(
        self,
        *,
        untitled: Mapping[str, Untitled],
        model: Model,
        queue: TurnQueue,
        history: History,
        beside: int,
        prices: Prices,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._untitled = untitled
        self._model = model
        self._queue = queue
        self._history = history
        self._beside = beside
        self._prices = prices
        self._pause = pause_seconds
        self._taken = asyncio.Event()

    def make_way(self) -> None:
        """End a request that is under way; its title comes later."""
        self._taken.set()

    async def run(self, answering: Sized) -> None:
        """Work until cancelled; `answering` has the turns that the worker answers."""
        while True:
            for untitled in list(self._untitled.values()):
                try:
                    while self._may_begin(answering) and (thread := await untitled.claim()):
                        await self._give(thread, untitled)
                except StoreUnavailable:
                    break
                except Exception:  # a worker does not end with it
                    log.exception("A title cannot be made")
            await asyncio.sleep(self._pause)

    def _may_begin(self, answering: Sized) -> bool:
        self._taken.clear()  # what is taken from now on ends the title
        return len(answering) <= self._beside

    async def _give(self, thread: ThreadKey, untitled: Untitled) -> None:
        """Give a conversation its title, or see to it later. Raises StoreUnavailable."""
        if await self._queue.lookup.first_open(thread):
            await untitled.put_off(thread, seconds=_LATER_SECONDS)
            return
        exchanges = await self._history.read(thread)
        first = exchanges[0] if exchanges else None
        if not first or first.asked_at < time.time() - _OLDEST_SECONDS:
            await untitled.entitle(thread, "")
            return
        meter = Meter()
        async with running(self._taken.wait()) as taken, running(self._write(first, meter)) as it:
            ends = asyncio.FIRST_COMPLETED
            await asyncio.wait((taken, it), timeout=TITLE_SECONDS, return_when=ends)
            makes_way = taken.done() and not it.done()
            title = it.result() if it.done() else ""
        if makes_way:
            # A busy worker would ask again and again: each pause is as long as all before it.
            seconds = max(time.time() - first.asked_at, _LATER_SECONDS)
            is_wanted = await untitled.put_off(thread, seconds=seconds)
        else:
            is_wanted = await untitled.entitle(thread, title)
        # Otherwise its person may be forgotten.
        if is_wanted and (bill := meter.bill).tokens:
            person = person_key(thread.platform, first.person)
            written = write_bill(bill, self._prices)
            await self._queue.script.run("count_use", str(thread), person, bill.tokens, written)

    async def _write(self, first: Exchange, meter: Meter) -> str:
        """Return what the model that answered says as a title; "" if that is none."""
        turn = await self._queue.lookup.turn(first.turn_id)
        # Words must not reach a model that their person has not chosen.
        chosen = turn.preferences.model if turn else ""
        choice = Preferences(model=chosen, temperature=0.0, max_tokens=_TOKENS)
        model = self._model.chosen(choice)
        prompt = [Message("user", _REQUEST.format(first.question[:_SHOWN], first.answer[:_SHOWN]))]
        said = ""
        try:
            async with aclosing(model.stream(prompt)) as deltas:
                async for delta in deltas:
                    meter.note(delta)
                    match delta:
                        case Retrying():
                            return ""
                        case Start():
                            said = ""
                        case str():
                            said += delta
                    if len(said) > _READ:
                        return ""
        except ModelError as error:
            log.info("The conversation of turn %s gets no title: %s", first.turn_id, error)
            return ""
        return title_in(said)


def title_in(said: str) -> str:
    """Return the title in what a model has said, on one line; "" if there is none."""
    lines = [_bare(one) for one in _THOUGHTS.sub("", said).splitlines()]
    lines = [one for one in lines if any(map(str.isalnum, one))]
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]  # "Here is a title:"
    title = lines[0] if lines else ""
    return "" if len(title) > _LONGEST or _REFUSAL.match(title) else title


def _bare(line: str) -> str:
    """Return a line without what is around a title."""
    line = one_line(whole_characters(line)).lstrip("#>- ").strip(_MARKS)
    line = _LABEL.sub("", line, count=1).strip(_MARKS) if _LABEL.match(line) else line
    return line[:-1] if line.endswith((".", "。")) and not line.endswith("..") else line
