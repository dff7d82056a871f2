"""What must hold after all faults, seen from outside: screens, prompts, histories and logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot.domain import Exchange
from tests.chaos.talks import APOLOGIES, Talk, answer_to, number_of, question
from tests.emulators.model.asked import Asked

Kind = Literal["whole", "apologised", "lost", "doubled", "half", "stray"]

KINDS: tuple[Kind, ...] = ("whole", "apologised", "lost", "doubled", "half", "stray")
_AT_ONCE = 0.1  # seconds between a kill and what the model sees of it


@dataclass
class Verdict:
    """How many turns ended how, and in words what may not be; times are in seconds.

    `recoveries` are from a SIGKILL until the model is asked again what the process was answering.
    """

    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    problems: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)

    def add(self, kind: Kind, words: str = "") -> None:
        self.counts[kind] += 1
        if kind not in ("whole", "apologised"):
            self.problems.append(f"{kind}: {words}")


def judge(
    talks: Sequence[Talk],
    *,
    asked: Sequence[Asked],
    remembered: Sequence[Sequence[Exchange]],
    killed: Sequence[float],
    logs: Sequence[str],
) -> Verdict:
    """Look at all that is left of a run in which everything has come to rest."""
    verdict = Verdict()
    told = {each.turn: each for each in _exchanges(remembered)}
    for talk in talks:
        order = _judge_screen(verdict, talk)
        _judge_prompts(verdict, order, asked)
        _judge_history(verdict, order, told)
    if len(told) != sum(len(each) for each in remembered):
        verdict.problems.append("an exchange is remembered twice")
    verdict.problems += sorted({words for log in logs for words in _tracebacks(log)})
    verdict.recoveries = sorted(_recoveries(asked, killed))
    return verdict


@dataclass(frozen=True)
class _Told:
    """An exchange as it is remembered, and the numbers of those before it in its thread."""

    turn: int
    answer: str
    before: tuple[int, ...]


def _judge_screen(verdict: Verdict, talk: Talk) -> list[int]:
    """Match what the bot shows with what was asked; return the whole answers in their order.

    An empty list where an answer is not whole: what follows it cannot be known.
    """
    left, screen, order = list(talk.asked), _bare("".join(talk.shown())), []
    while screen:
        number, length = max(((n, _alike(n, screen)) for n in left), key=_second, default=(0, 0))
        if length == len(_bare(answer_to(number))) and number:
            verdict.add("whole")
            order.append(number)
        elif ended := next(
            (each for each in map(_bare, APOLOGIES) if screen.startswith(each, length)), ""
        ):
            verdict.add("apologised")
            length += len(ended)
        else:
            shown = screen[max(0, length - 60) : length + 60]
            again = any(_alike(n, screen) > 20 for n in talk.asked if n not in left)
            kind: Kind = "doubled" if again else "half" if length else "stray"
            verdict.add(kind, f"{talk.name}, {number}: {shown}")
            return []
        left.remove(number)
        screen = screen[length:]
    for number in left:
        verdict.add("lost", f"{talk.name}, {question(number)}")
    if any(button.startswith("stop") for button in talk.buttons()):
        verdict.add("half", f"a button to stop stands below one of {talk.asked}")
    return order if len(order) == len(talk.asked) else []


def _judge_prompts(verdict: Verdict, order: Sequence[int], asked: Sequence[Asked]) -> None:
    """Each prompt ends with all earlier exchanges of its thread, as far as the context reaches."""
    whole: list[tuple[str, str]] = []
    for number in order:
        whole.append(("user", question(number)))
        for each in asked:
            if each.finished and number_of(each.messages[-1]["content"]) == number:
                said = [(one["role"], one["content"]) for one in each.messages]
                said = [one for one in said if one[0] != "system"]
                if said != whole[-len(said) :] or len(said) < min(len(whole), 3):
                    verdict.problems.append(f"the prompt of {number} is {said}")
        whole.append(("assistant", answer_to(number)))


def _judge_history(verdict: Verdict, order: Sequence[int], told: Mapping[int, _Told]) -> None:
    for place, number in enumerate(order):
        one = told.get(number)
        if one is None or one.answer != answer_to(number):
            verdict.problems.append(f"the history has of {number}: {one and one.answer}")
        elif one.before != tuple(order[:place]):
            verdict.problems.append(f"the history has {one.before} before {number}")


def _exchanges(remembered: Sequence[Sequence[Exchange]]) -> Iterator[_Told]:
    for thread in remembered:
        numbers = [number_of(one.question) for one in thread]
        for place, one in enumerate(thread):
            yield _Told(numbers[place], one.answer, tuple(numbers[:place]))


def _recoveries(asked: Sequence[Asked], killed: Sequence[float]) -> Iterator[float]:
    for number, each in enumerate(asked):
        left = each.hung_up_at
        moment = next((at for at in killed if left and 0 <= left - at < _AT_ONCE), None)
        if moment is None:
            continue
        what = number_of(each.messages[-1]["content"])
        for other in asked[number + 1 :]:
            if other.at > moment and number_of(other.messages[-1]["content"]) == what:
                yield other.at - moment
                break


def _alike(number: int, screen: str) -> int:
    """Return how many characters of an answer the screen begins with."""
    pairs = enumerate(zip(_bare(answer_to(number)), screen, strict=False))
    both = min(len(_bare(answer_to(number))), len(screen))
    return next((place for place, (one, other) in pairs if one != other), both)


def _apology(screen: str) -> str:
    return next((each for each in map(_bare, APOLOGIES) if screen.startswith(each)), "")


def _second(pair: tuple[int, int]) -> int:
    return pair[1]


def _bare(text: str) -> str:
    return "".join(text.split())


def _tracebacks(log: str) -> Iterator[str]:
    """Yield what was logged with a traceback, and the error at its end."""
    before = ""
    lines = iter(log.splitlines())
    for line in lines:
        if line.startswith("Traceback"):
            error = next((each for each in lines if not each.startswith(" ")), "")
            yield f"{before[24:]}: {error}"
        before = line
