"""What must hold after all faults, seen from outside: screens, prompts, histories and logs.

And how long what a killed process was answering waits until the model is asked for it again.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bot.domain import Exchange
from tests.chaos.screens import ALLOWED, Screen, Seen, read_talk
from tests.chaos.talks import Talk, answer_to, bare, number_of, question, remarks_in
from tests.emulators.model.asked import Asked

# A question behind its speaker, and perhaps a context.
_SPOKEN = re.compile(r"(?:^|\n)[^\n]*?: (This is question \d+, please\.)$")
# Within so many seconds the model may still get what the dead process had asked.
_AT_ONCE = 0.1
_UNREAD = " is not read: "  # see bot/turns/context.py


@dataclass
class Verdict:
    """How many turns ended how, what stood there besides, and in words what may not be.

    Each turn is in `counts` once, under its End, and each Extra beside.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def judge(
    talks: Sequence[Talk],
    *,
    asked: Sequence[Asked],
    remembered: Sequence[Sequence[Exchange]],
    logs: Sequence[str],
) -> Verdict:
    """Look at all that is left of a run in which everything has come to rest."""
    verdict = Verdict()
    told = {each.turn: each for each in _exchanges(remembered)}
    prompts = _by_number(asked)
    whole = {number: [one for one in each if one.finished] for number, each in prompts.items()}
    for talk in talks:
        screen = read_talk(talk)
        _count(verdict, talk, screen)
        _judge_prompts(verdict, talk, screen, whole, told)
        _judge_history(verdict, screen, told)
        _judge_deleted(verdict, talk, prompts, told)
        if talk.is_joined:
            _judge_contexts(verdict, talk, prompts, logs)
    if len(told) != sum(len(each) for each in remembered):
        verdict.problems.append("an exchange is remembered twice")
    verdict.problems += sorted({words for log in logs for words in _tracebacks(log)})
    return verdict


@dataclass(frozen=True)
class _Told:
    """An exchange as it is remembered, and the numbers of those before it in its thread."""

    turn: int
    answer: str
    before: tuple[int, ...]


def _count(verdict: Verdict, talk: Talk, screen: Screen) -> None:
    for seen in screen.turns:
        verdict.counts[seen.end] += 1
        if seen.end not in ALLOWED:
            place = f"{talk.name}, {seen.number}, after {talk.asked.index(seen.number)} others"
            verdict.problems.append(f"{seen.end}: {place}: {seen.said[-60:]}")
    for kind, words in screen.extras:
        verdict.counts[kind] += 1
        verdict.problems.append(f"{kind}: {talk.name}: {words}")
    if talk.is_stoppable():
        verdict.problems.append(f"a button to stop stands below one of {talk.asked}")


def _judge_prompts(
    verdict: Verdict,
    talk: Talk,
    screen: Screen,
    prompts: Mapping[int, Sequence[Asked]],
    told: Mapping[int, _Told],
) -> None:
    """Each prompt ends with all earlier exchanges of its thread, as far as the context reaches.

    What a broken turn has left there nobody knows, so it may be there or not.
    """
    broken = {
        question(number)
        for seen in screen.turns
        if _is_broken(seen)
        for number in talk.texts(seen.number)
    }
    whole: list[tuple[str, str]] = []
    for seen in _that_said(screen):
        whole.append(("user", question(seen.number)))
        for each in prompts.get(seen.number, ()):
            said = [(one["role"], _plain(one["content"], talk)) for one in each.messages]
            said = [one for one in said if one[0] != "system"]
            known = list(_without(said, broken))
            if known != whole[-len(known) :] or len(said) < min(len(whole), 3):
                words = [text[:24] for _, text in said]
                verdict.problems.append(f"the prompt of {seen.number} is {words}")
        if seen.number in told:
            whole.append(("assistant", told[seen.number].answer))
        else:
            # What is not remembered stands in no prompt either; the history tells.
            whole.pop()


def _judge_history(verdict: Verdict, screen: Screen, told: Mapping[int, _Told]) -> None:
    """What was said is remembered as it stands there, in its order, and nothing else is."""
    for seen in screen.turns:
        if seen.end == "apology" and seen.number in told:
            verdict.problems.append(f"the history has of {seen.number} what nobody was shown")
    before: list[int] = []
    known = {seen.number for seen in screen.turns if not _is_broken(seen)}
    for seen in _that_said(screen):
        one = told.get(seen.number)
        if one is None:
            verdict.problems.append(f"the history has nothing of {seen.number}")
            continue
        if bare(one.answer) != seen.said or not _is_verbatim(one.answer, seen):
            verdict.problems.append(f"the history has of {seen.number}: {one.answer[-60:]}")
        elif [number for number in one.before if number in known] != before:
            verdict.problems.append(f"the history has {one.before} before {seen.number}")
        before.append(seen.number)


def _that_said(screen: Screen) -> list[Seen]:
    """Return the turns of which it is known what they said, in their order."""
    return [seen for seen in screen.turns if seen.said and not _is_broken(seen)]


def _is_broken(seen: Seen) -> bool:
    # If there is no answer to the new text of a question, what is remembered is the former one.
    return seen.end in ("half", "lost", "stale", "former and apology")


def _is_verbatim(answer: str, seen: Seen) -> bool:
    said = answer.rstrip()
    # An answer that was cut within its first words does not tell which prompt the model had.
    is_head = re.fullmatch(rf"Answer {seen.number} h[eard]*[ \d,]*", said)
    return bool(is_head) or answer_to(seen.number, seen.heard).startswith(said)


def _plain(text: str, talk: Talk) -> str:
    """Return a question without its speaker and its context; other texts as they are."""
    found = _SPOKEN.search(text) if talk.is_joined else None
    return found[1] if found else text


def _judge_deleted(
    verdict: Verdict, talk: Talk, prompts: Mapping[int, Sequence[Asked]], told: Mapping[int, _Told]
) -> None:
    """What was deleted, or whose answer was, is remembered nowhere, and no later prompt shows it.

    Only the newest question is deleted, so all with a greater number were asked later.
    """
    for newest, what in talk.gone.items():
        numbers = talk.texts(newest)
        if any(number in told for number in numbers):
            verdict.problems.append(f"the history has {newest}, whose {what} was deleted")
        shows = re.compile("|".join(rf"question {one}\b|Answer {one}\b" for one in numbers))
        for later in (one for one in talk.asked if one > newest):
            asked = (each for number in talk.texts(later) for each in prompts.get(number, ()))
            if any(shows.search(one["content"]) for each in asked for one in each.messages):
                words = f"the prompt of {later} shows {newest}, whose {what} was deleted"
                verdict.problems.append(f"{words}, in {talk.name}")


def _judge_contexts(
    verdict: Verdict, talk: Talk, prompts: Mapping[int, Sequence[Asked]], logs: Sequence[str]
) -> None:
    """All prompts of a turn show the same before its question, whichever of its texts they have.

    That are remarks of its own thread from before the question, in their order, and all since the
    last question. Where some could not be read, the log tells so, and another attempt may read
    them.
    """
    unread = [line for log in logs for line in log.splitlines() if _UNREAD in line]
    before = 0
    for newest in talk.asked:
        first, *_ = numbers = talk.texts(newest)
        asked = [one for each in numbers for one in prompts.get(each, ())]
        shown = sorted({remarks_in(one.messages[-1]["content"]) for one in asked})
        said = [one for one in talk.remarks if one < first]
        where = f"the context of {newest}, in {talk.name},"
        for each in shown:
            # What a message replies to, in Slack the thread's parent, is shown last.
            in_order = [*each[:-1]] == sorted(each[:-1]) and len({*each}) == len(each)
            if not {*each} <= {*said} or not in_order:
                verdict.problems.append(f"{where} is {each}, not {said}")
        if not any(talk.message_of(first) in line for line in unread):
            if len(shown) > 1:
                verdict.problems.append(f"{where} changes: {shown}")
            # A question that comes with Slack's second try may be answered after the next one. The
            # history has the context of that one.
            since = {one for one in said if one > before}
            whole = ["\n".join(it["content"] for it in one.messages) for one in asked]
            if lacking := [each for each in map(remarks_in, whole) if not since <= {*each}]:
                verdict.problems.append(f"{where} lacks some of {sorted(since)}: {lacking}")
        before = first


def _without(said: Sequence[tuple[str, str]], broken: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the messages of a prompt but for these questions and their answers."""
    skips = False
    for role, text in said:
        skips = text in broken if role == "user" else skips
        if not skips:
            yield role, text


def _by_number(asked: Sequence[Asked]) -> dict[int, list[Asked]]:
    found: dict[int, list[Asked]] = {}
    for each in asked:
        found.setdefault(number_of(each.messages[-1]["content"]), []).append(each)
    return found


def _exchanges(remembered: Sequence[Sequence[Exchange]]) -> Iterator[_Told]:
    for thread in remembered:
        numbers = [number_of(one.question) for one in thread]
        for place, one in enumerate(thread):
            yield _Told(numbers[place], one.answer, tuple(numbers[:place]))


def _tracebacks(log: str) -> Iterator[str]:
    """Yield what was logged with a traceback, and the error at its end."""
    before = ""
    lines = iter(log.splitlines())
    for line in lines:
        if line.startswith("Traceback"):
            error = next((each for each in lines if not each.startswith(" ")), "")
            yield f"{before[24:]}: {error}"
        before = line


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL, in monotonic seconds, and the questions whose lease the process had then.

    `pid` is the process, and `up` are those that were up besides.
    """

    at: float
    held: frozenset[int] = frozenset()
    pid: int = 0
    up: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Recovery:
    """From the kill of the last process that had a turn until the model is asked for it again.

    `others` are the kills of other processes in that time; it is `attended` when one was up from
    its beginning to its end.
    """

    number: int
    at: float
    seconds: float
    others: int
    attended: bool


def recoveries(asked: Sequence[Asked], kills: Sequence[Kill]) -> list[Recovery]:
    """Return them all, the shortest first.

    Where the process that takes a turn over is killed before it asks, the time begins anew. A turn
    that is never asked for again, for all of it had been said, is not here.
    """
    times = defaultdict[int, list[float]](list)
    for each in asked:
        times[number_of(each.messages[-1]["content"])].append(each.at)
    found = [one for kill in kills for one in _from(kill, times, kills)]
    return sorted(found, key=lambda one: one.seconds)


def _from(
    kill: Kill, times: Mapping[int, Sequence[float]], kills: Sequence[Kill]
) -> Iterator[Recovery]:
    for number in kill.held:
        again = (at for at in times.get(number, ()) if at > kill.at + _AT_ONCE)
        if (asked := min(again, default=None)) is None:
            continue
        between = [one for one in kills if kill.at < one.at < asked]
        if not any(number in one.held for one in between):
            left = kill.up - {one.pid for one in between}
            yield Recovery(number, kill.at, asked - kill.at, len(between), bool(left))
