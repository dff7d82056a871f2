"""How late fifty answers are while files are read beside them, and without files.

    python -m bench.files [ROUNDS [PEOPLE]]

The bot runs as a process and answers people who ask by `/ask` in DMs of an emulated Discord: fifty
growing messages alone would use up what Discord allows in a second, which does not count for
commands. In every other round a text of 400,000 characters, a PDF of 80 full pages and each of the
hostile files of tests/app/test_hostile_files.py are sent at the same moment, each in a further DM;
in the rounds between, as many further people ask without a file. What the model says to them is
short. The fifty ask anew until all files are answered, and as often in the round without.

Needs Linux, requirements-files.txt and a machine that does nothing else. Prints percentiles over
all rounds, in milliseconds, and how much larger they are with files:

- token to screen: from each token that the model sends to the message that shows it;
- question to text: from each question to the first text of its answer;
- the bench's own loop: how late its timers are, which delays the model and the platform, too.

Then the longest time from the question of a file to the end of its answer; the longest life and
the largest resident memory of a child that reads, looked at a hundred times a second; and the
memory of the bot. Each round's figures go to stderr.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from bench import figures
from bench.freshness import freshness, token_delays
from bench.stage import DiscordStage, Question, a_stage, answer, request_of
from bot.concurrency import running
from tests.app.test_hostile_files import FILES
from tests.emulators.timeline import Moment
from tests.files.samples import pdf
from tests.support.process import bot
from tests.support.replies import answer_of
from tests.support.waiting import until

ROUNDS, PEOPLE = 5, 50
LONGEST = 300.0  # seconds until an answer has ended
_IDLE = 1.5  # seconds between two rounds
_LOOK = 0.01  # seconds between two looks at the children
_READING = b"bot.files.fork_server"
_COLUMNS = ("p50", "p95", "p99", "longest")
_FIRST_FURTHER = 100_000  # the number of the first question of a further person
_NUMBERS, _FURTHER = itertools.count(1), itertools.count(_FIRST_FURTHER)

_LINE = "The river rises in the hills and runs past mills, gardens and small towns. "
_PAGE = b"BT /F 12 Tf 14 TL 40 760 Td %s ET" % (b"(%s) Tj T* " % _LINE.encode() * 50)
# The first are read at once, the others as soon as they can be.
SENT = {"a text.txt": (_LINE * 6_000)[:400_000].encode(), "pages.pdf": pdf([_PAGE] * 80)} | FILES


@dataclass(slots=True)
class Seen:
    """What was seen in the rounds of one kind, in seconds; `late` is the bench's own loop.

    `took` is from each further question to the end of its answer. `children` that read have the
    times at which they were seen first and last, and their memory at most, in MB.
    """

    tokens: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    children: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    incomplete: int = 0


class Dms(DiscordStage):
    """Everybody asks by a command in a DM."""

    def __init__(self, stage: DiscordStage) -> None:
        super().__init__(stage.discord, stage.model, "one channel")
        self.model.answer = _answer

    async def ask(self, numbers: Iterable[int]) -> list[Question]:
        return [await self.say(number) for number in numbers]

    async def say(self, number: int, *files: tuple[str, bytes]) -> Question:
        """Ask, with these files."""
        person = self.discord.user(f"Person {number}")
        place, at = self.discord.dm(person), time.monotonic()
        asked = {"question": f"question {number}"} | dict(zip(["file"], files, strict=False))
        said = await self.discord.slash(place, person, "ask", **asked)
        return Question(number, at, place, said)

    async def ended(self, questions: Iterable[Question]) -> None:
        """Return when all answers have ended."""
        left = [*questions]

        def have_ended() -> bool:
            while left and self._has_ended(left[-1]):
                left.pop()
            return not left

        await until(have_ended, within=LONGEST, why=lambda: left)

    def moments(self, question: Question) -> list[Moment]:
        seen = self.discord.timeline(question.channel)
        return [replace(one, text=text) for one in seen if (text := answer_of(one.text))]

    def _has_ended(self, question: Question) -> bool:
        shown = self.discord.screen(question.channel)
        return any("Regenerate" in label for one in shown for label in one.labels)

    def _channel(self, question: Question) -> str:
        return question.channel


async def main(rounds: int = ROUNDS, people: int = PEOPLE) -> None:
    without, beside = Seen(), Seen()
    files = [(one,) for one in SENT.items()]
    async with a_stage("discord", "one channel") as stage:
        assert isinstance(stage, DiscordStage)
        dms = Dms(stage)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with bot(data_dir=Path(folder), variables=dms.variables()) as process:
                pid = process.process.pid
                await dms.connected()
                await dms.ended(await dms.ask([0]))
                for _ in range(rounds):
                    times = await _round(dms, pid, beside, people, files)
                    await _round(dms, pid, without, people, [()] * len(files), times=times)
                memory = figures.resident(pid, peak=True)
    print(figures.load())
    print(f"{'milliseconds':<38}{''.join(f'{name:>9}' for name in _COLUMNS)}")
    for name, one, other in (
        ("token to screen", without.tokens, beside.tokens),
        ("question to text", without.first, beside.first),
        ("the bench's own loop", without.late, beside.late),
    ):
        before, after = _cuts(one), _cuts(other)
        print(_row(f"{name}, without files", before))
        print(_row(f"{name}, with files", after))
        print(_row("difference", [b - a for a, b in zip(before, after, strict=True)]))
    print(f"not whole: {without.incomplete} answers without files, {beside.incomplete} with files")
    print(f"{len(beside.took)} files, from question to end: {max(beside.took):.1f} s at most")
    lives = [end - start for start, end, _ in beside.children.values()]
    most = max(most for *_, most in beside.children.values())
    print(f"{len(lives)} children that read: {max(lives):.1f} s and {most:.0f} MB at most")
    print(f"the bot: {memory:.0f} MB at most")


async def _round(
    dms: Dms,
    pid: int,
    seen: Seen,
    people: int,
    sent: Sequence[Sequence[tuple[str, bytes]]],
    *,
    times: int = 1,
) -> int:
    """Let people ask until all that is sent beside is answered, and `times` at least.

    Return how often.
    """
    await asyncio.sleep(_IDLE)
    dms.model.requests.clear()
    waves = list[list[Question]]()
    async with running(_watch(pid, seen)):
        beside = [await dms.say(next(_FURTHER), *files) for files in sent]
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(dms.ended(beside))
            while len(waves) < times or not ending.done():
                waves.append(await dms.ask(itertools.islice(_NUMBERS, people)))
                await dms.ended(waves[-1])
    delays = list[float]()
    for question in itertools.chain(beside, *waves):
        asked, moments = request_of(dms.model, question), dms.moments(question)
        if not asked or not moments:
            seen.incomplete += 1
        elif question in beside:
            seen.took.append(moments[-1].at - question.at)
        else:
            delays += token_delays(asked.deltas, moments)
            seen.first.append(moments[0].at - question.at)
            seen.incomplete += not freshness(asked.deltas, moments).whole
    seen.tokens += delays
    kind = "with files" if any(sent) else "without files"
    print(_row(f"{kind}, {people} people ask {len(waves)} times", _cuts(delays)), file=sys.stderr)
    return len(waves)


async def _watch(pid: int, seen: Seen) -> None:
    """Note how late this loop is, and what the bot's children that read take."""
    while True:
        due = time.monotonic() + _LOOK
        await asyncio.sleep(_LOOK)
        seen.late.append(time.monotonic() - due)
        # A child, or a thread of the bot, may just have ended.
        with suppress(OSError, ValueError):
            for child in _readers(pid):
                _look_at(child, seen)


def _readers(pid: int) -> list[int]:
    """Return the copies of the fork server of a process."""
    servers = figures.children(pid)
    servers = [it for it in servers if _READING in Path(f"/proc/{it}/cmdline").read_bytes()]
    return [child for server in servers for child in figures.children(server)]


def _look_at(child: int, seen: Seen) -> None:
    now, most = time.monotonic(), figures.resident(child, peak=True)
    since, _, before = seen.children.get(child, (now, now, 0.0))
    seen.children[child] = since, now, max(before, most)


def _answer(messages: list[dict[str, str]]) -> str:
    """Answer further people in short."""
    text = answer(messages)
    opening = text.partition(": ")[0]
    return f"{opening}: well." if int(opening.split()[1]) >= _FIRST_FURTHER else text


def _cuts(seconds: Sequence[float]) -> list[float]:
    """Return what _COLUMNS names, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return [1000 * one for one in (cuts[49], cuts[94], cuts[98], max(seconds))]


def _row(name: str, values: Sequence[float]) -> str:
    return f"{name:<38}{''.join(f'{value:>9.1f}' for value in values)}"


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
