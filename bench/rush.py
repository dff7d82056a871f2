"""The rush hour of a Slack workspace: more answers in a minute than its edits can carry.

    python -m bench.reply rush [--minute 70 100 200 300] [--channels 40 4 1 0] [--share 1.0]
                               [--seconds 60] [--tail 45] [--kill] [--trace]

So many people ask in a minute, evenly, each in a thread of one of the channels, or in a DM each if
there are 0. The answers take 4 to 20 s. `--share` is how much of the documented limits is true.
With `--kill`, two processes answer, and one of them is killed in the middle.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import figures
from bench.freshness import Freshness, freshness
from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.emulators.model.asked import Asked
from tests.emulators.slack import SlackEmulator
from tests.emulators.timeline import Moment
from tests.support.process import bot, slack_variables
from tests.support.waiting import until

LATENCY = 0.08  # seconds that a call takes
SPEED, LETTERS = 15.0, 10  # tokens a second, and letters of one
LATE = 5.0  # seconds
SHORTEST, SPREAD = 4, 17  # seconds of an answer, and how many lengths there are
_WORDS = "The river rises in the hills and runs past mills, gardens and small towns. "
_NUMBER = re.compile(r"question (\d+)")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and where its answer is."""

    number: int
    channel: str
    thread: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a question was answered; it `grew` if there was text before the last token."""

    fresh: Freshness | None
    grew: bool
    messages: int


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.reply rush")
    parser.add_argument("--minute", nargs="+", type=int, default=[70, 100, 200, 300])
    parser.add_argument("--channels", nargs="+", type=int, default=[40, 4, 1, 0])
    parser.add_argument("--share", nargs="+", type=float, default=[1.0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tail", type=float, default=45.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--trace", action="store_true", help="print what became of late answers")
    chosen = parser.parse_args(arguments)
    for channels in chosen.channels:
        for minute in chosen.minute:
            for share in chosen.share:
                print(uvloop.run(_rush(chosen, minute, channels, share)), flush=True)


async def _rush(chosen: argparse.Namespace, minute: int, channels: int, share: float) -> str:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-")))
        model = await stack.enter_async_context(ModelEmulator())
        model.answer, model.chunk, model.delay, model.first_delay = _answer, LETTERS, 1 / SPEED, 0.3
        slack = await stack.enter_async_context(SlackEmulator(latency=LATENCY, share=share))
        variables = slack_variables(slack, model) | {"LEASE_SECONDS": "3"}
        if chosen.kill:
            store = await stack.enter_async_context(connect(url="", data_dir=folder))
            variables["REDIS_URL"] = store.url
        one = await stack.enter_async_context(bot(data_dir=folder, variables=variables))
        processes = [one]
        if chosen.kill:
            other = bot("worker", data_dir=folder, variables=variables)
            processes.append(await stack.enter_async_context(other))
            await until(lambda: "Running as" in processes[1].text(), why=processes[1].text)
        await asyncio.wait_for(slack.connected.wait(), 60)
        used = figures.processor(one.process.pid)
        questions: list[Question] = []
        asked, began, count = [], time.monotonic(), round(minute * chosen.seconds / 60)
        rooms = [slack.channel(f"room-{number}") for number in range(channels)]
        for number in range(1, count + 1):
            await asyncio.sleep(began + (number - 1) * 60 / minute - time.monotonic())
            if chosen.kill and number == count // 2:
                processes[1].kill()
            asked.append(asyncio.create_task(_ask(slack, number, rooms, questions)))
        deadline = time.monotonic() + chosen.tail
        while time.monotonic() < deadline:
            await asyncio.sleep(1.0)
            done = [_judged(slack, model, question) for question in questions]
            if len(done) == count and all(it.fresh and it.fresh.whole for it in done):
                break
        took = time.monotonic() - began
        done = [_judged(slack, model, question) for question in questions]
        used = figures.processor(one.process.pid) - used
        limited = Counter(call.method for call in slack.requests if call.limited)
        calls = len(slack.requests)
        await asyncio.gather(*asked)
        stops = sum(_stoppable(slack, question) for question in questions)
        for question, answer in zip(questions, done, strict=True) if chosen.trace else ():
            if not answer.fresh or not answer.fresh.whole or (answer.fresh.last or 0.0) > LATE:
                print(f"late: {question.number}", _traced(slack, model, question), file=sys.stderr)
        for complaint in sorted(set(slack.unknown + slack.violations)):
            print(complaint, file=sys.stderr)
        slack.unknown.clear()
        slack.violations.clear()
    return _told(minute, channels, share, done, calls, limited) + (
        f"; Stop still there {stops}; {used / took:.0%} CPU, {took:.0f} s, {figures.load()}"
    )


async def _ask(
    slack: SlackEmulator, number: int, rooms: Sequence[str], questions: list[Question]
) -> None:
    person = slack.user(f"Person {number}")
    if not rooms:
        dm = slack.dm(person)
        await slack.say(dm, person, f"question {number}")
        questions.append(Question(number, dm, None))
        return
    room = rooms[number % len(rooms)]
    said = await slack.say(room, person, f"{slack.bot_mention} question {number}")
    questions.append(Question(number, room, said))


def _answer(messages: list[dict[str, str]]) -> str:
    number = int(_NUMBER.findall(messages[-1]["content"])[-1])
    length = int((SHORTEST + number * 7 % SPREAD) * SPEED * LETTERS)
    text = f"Answer {number}: " + _WORDS * 50
    return text[: length - 1].rstrip().ljust(length, ".")


def _request(model: ModelEmulator, question: Question) -> Asked | None:
    for asked in reversed(model.requests):
        if _NUMBER.findall(asked.messages[-1]["content"])[-1:] == [str(question.number)]:
            return asked
    return None


def _judged(slack: SlackEmulator, model: ModelEmulator, question: Question) -> Answer:
    asked, moments = _request(model, question), _moments(slack, question)
    if asked is None or not asked.deltas or not moments or not asked.finished:
        return Answer(None, False, 0)
    return Answer(
        fresh=freshness(asked.deltas, moments),
        grew=moments[0].at < asked.deltas[-1].at,
        messages=len({one.message for one in moments}),
    )


def _moments(slack: SlackEmulator, question: Question) -> list[Moment]:
    shown = slack.timeline(question.channel, question.thread)
    ids = {one.message for one in shown if one.text.startswith(f"Answer {question.number}:")}
    first = min(ids, default="")
    return [one for one in shown if ids and one.what != "sign" and one.message >= first]


def _traced(slack: SlackEmulator, model: ModelEmulator, question: Question) -> str:
    """Return what became of an answer, in seconds since the last token."""
    asked = _request(model, question)
    ended = asked.deltas[-1].at if asked and asked.deltas else 0.0
    return ", ".join(
        f"{one.at - ended:.1f} {one.what} {one.message[-7:]}: {len(one.text)}"
        for one in slack.timeline(question.channel, question.thread)
    )


def _stoppable(slack: SlackEmulator, question: Question) -> bool:
    shown = slack.screen(question.channel, question.thread)
    return any(button.startswith("stop") for one in shown for button in one.buttons)


def _told(
    minute: int,
    channels: int,
    share: float,
    done: Sequence[Answer],
    calls: int,
    limited: Counter[str],
) -> str:
    whole = [it.fresh.last for it in done if it.fresh and it.fresh.last is not None]
    late = sorted(whole) or [float("nan")]
    names = ", ".join(f"{name} {count}" for name, count in limited.most_common())
    where = f"{channels} channels" if channels else "DMs"
    p95 = late[min(int(len(late) * 0.95), len(late) - 1)]
    return (
        f"{minute} a minute in {where}, limits x {share:g}: "
        f"{len(whole)} of {len(done)} whole; {sum(it.grew for it in done) / len(done):.0%} grew; "
        f"last token to final {statistics.median(late):.2f} / {p95:.2f} / {late[-1]:.2f} s; "
        f"429s {sum(limited.values())} of {calls} ({names or 'none'}); "
        f"{sum(it.messages > 1 for it in done)} in several messages"
    )
