"""One scene of a bench: as many questions at once, and how a bot answered them."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import figures
from bench.freshness import Freshness, freshness
from bench.stage import Question, Stage, request_of
from tests.emulators.model.asked import Asked
from tests.emulators.timeline import Delta, Moment

# Nothing more is to be expected when a bot has been quiet for longer than any wait it was told.
QUIET = 12.0  # seconds
LONGEST = 150.0  # seconds; what is not complete then counts as incomplete
_PAUSE = 0.25  # seconds between two looks at the screen
_LOOKS = int(LONGEST / _PAUSE)

Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one question was answered, in seconds.

    `asked`: from the question to the bot's request of the model. `ended`: from the last token to
    the last change of a complete answer. `curve` has the share of the text that stood on the
    screen, by the time since the first token. What never came is None.
    """

    asked: float | None
    fresh: Freshness | None
    ended: float | None
    curve: Curve


@dataclass(frozen=True, slots=True)
class Scene:
    """What a bot did with questions that came at once.

    `seconds` is how long the model spoke, `refused` the calls that were answered with 429, and
    `processor` the CPU seconds that each reply took above those of an idle bot.
    """

    seconds: float
    answers: tuple[Answer, ...]
    calls: int
    refused: int
    processor: float

    @property
    def delay(self) -> float:
        """The mean delay of a token, over all answers of which anything was shown."""
        shown = [one.fresh.mean for one in self.answers if one.fresh]
        return statistics.fmean(shown) if shown else math.nan

    @property
    def incomplete(self) -> int:
        """How many answers do not stand there as the model gave them."""
        return sum(one.ended is None for one in self.answers)


async def play(
    stage: Stage, pid: int, numbers: Sequence[int], *, idle: float, limited: float = 0.0
) -> Scene:
    """Let people ask at once and watch the bot, whose process takes `idle` CPU seconds a second.

    If `limited`, an edit of the first answer earns a 429 that asks for so many seconds.
    """
    calls, used, began = len(stage.calls()), figures.processor(pid), time.monotonic()
    questions = await stage.ask(numbers)
    if limited:
        stage.limit(questions[0], seconds=limited)
    await settled(stage, questions)
    spent = figures.processor(pid) - used - idle * (time.monotonic() - began)
    made = stage.calls()[calls:]
    return Scene(
        seconds=_spoken(stage, questions),
        answers=tuple(_answer(stage, question) for question in questions),
        calls=len(made),
        refused=sum(call.limited for call in made),
        processor=spent / len(questions),
    )


async def settled(stage: Stage, questions: Sequence[Question]) -> None:
    """Return when all answers are there for good, or nothing moves any more."""
    still, seen = 0, _moves(stage)
    for _ in range(_LOOKS):
        if all(_is_through(stage, question) for question in questions):
            return
        await asyncio.sleep(_PAUSE)
        moves = _moves(stage)
        still, seen = (still + 1 if moves == seen else 0), moves
        if still * _PAUSE > QUIET:
            return


def _is_through(stage: Stage, question: Question) -> bool:
    asked = request_of(stage.model, question)
    if asked is None or not asked.finished or stage.stoppable(question):
        return False
    return _stands(asked.deltas, stage.moments(question))


def _moves(stage: Stage) -> tuple[int, int]:
    """Return how often the bot has called, and the model spoken."""
    return len(stage.calls()), sum(len(asked.deltas) for asked in stage.model.requests)


def _answer(stage: Stage, question: Question) -> Answer:
    asked, moments = request_of(stage.model, question), stage.moments(question)
    if asked is None:
        return Answer(None, None, None, ())
    shown = bool(asked.deltas and moments)
    ends = moments[-1].at - asked.deltas[-1].at if shown else None
    return Answer(
        asked=asked.at - question.at,
        fresh=freshness(asked.deltas, moments) if shown else None,
        ended=ends if _stands(asked.deltas, moments) else None,
        curve=_curve(asked.deltas, moments) if shown else (),
    )


def _spoken(stage: Stage, questions: Sequence[Question]) -> float:
    spoken = [request_of(stage.model, question) for question in questions]
    spans = [_span(asked) for asked in spoken if asked and asked.deltas]
    return statistics.fmean(spans) if spans else math.nan


def _span(asked: Asked) -> float:
    return asked.deltas[-1].at - asked.deltas[0].at


def _stands(deltas: Sequence[Delta], moments: Sequence[Moment]) -> bool:
    """Whether the last texts of the messages are what the model said, to the last line break.

    Between two messages white space may be missing.
    """
    texts = {moment.message: moment.text for moment in moments}
    if len(texts) == 1:
        (text,) = texts.values()
        return text.strip() == "".join(delta.text for delta in deltas).strip() != ""
    return bool(deltas) and _bare("".join(texts.values())) == _said(deltas)


def _curve(deltas: Sequence[Delta], moments: Sequence[Moment]) -> Curve:
    said, texts, points = _said(deltas), {}, []
    for moment in moments:
        texts[moment.message] = _bare(moment.text)
        shown = "".join(texts.values())
        if said.startswith(shown):
            points.append((moment.at - deltas[0].at, len(shown) / len(said)))
    return tuple(points)


def _said(deltas: Sequence[Delta]) -> str:
    return _bare("".join(delta.text for delta in deltas))


def _bare(text: str) -> str:
    return "".join(text.split())
