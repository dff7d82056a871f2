"""Conversations with the bot: what was said, changed and deleted in them, and what they show."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from bot import errors
from bot.reply.draft import FAILED_ANEW
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.support.waiting import until

_NUMBER = re.compile(r"question (\d+)")
_REMARK = re.compile(r"remark (\d+)")
_BEGINNING = re.compile(r"Answer (\d+)[ :]")
_WORDS = ("amber", "birch", "cloud", "delta", "ember", "fjord", "grove", "heron", "inlet")
# What may stand in the place of an answer, or below a part of it.
APOLOGIES = tuple(
    kind.apology
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ParleyError)
)
# Below the answer to the former text of a question, if there is none to the newest.
ANEW = tuple(FAILED_ANEW.format(apology=one) for one in APOLOGIES)
DELETING = 400.0  # seconds in which Slack has told of a deletion for the last time
LONG = 9  # every so manieth answer fills several messages of Discord


def question(number: int) -> str:
    return f"This is question {number}, please."


def remark(number: int) -> str:
    """Return what others say among themselves."""
    return f"This is remark {number}, by the way."


def number_of(text: str) -> int:
    return int(_NUMBER.findall(text)[-1])


def remarks_in(text: str) -> tuple[int, ...]:
    return tuple(map(int, _REMARK.findall(text)))


def answer(messages: Sequence[dict[str, str]]) -> str:
    """Return what the model says to the last question, the same each time that it is asked.

    It depends on what others are shown to have said before the question.
    """
    last = messages[-1]["content"]
    return answer_to(number_of(last), remarks_in(last))


@cache
def answer_to(number: int, heard: tuple[int, ...] = ()) -> str:
    rng = random.Random(f"{number} {heard}" if heard else number)
    count = 450 if number % LONG == 0 else rng.randint(10, 60)
    head = f"Answer {number} heard {','.join(map(str, heard))}:" if heard else f"Answer {number}:"
    return f"{head} " + " ".join(rng.choice(_WORDS) for _ in range(count)) + "."


Gone = Literal["question", "answer"]
Forgotten = Callable[[str], Awaitable[None]]


@dataclass
class Talk:
    """One conversation; `asked` are the numbers of its questions in the order of asking.

    A question that is edited gets another number in the place of its own: `former` has the earlier
    ones, with the newest of each. `gone` are those that were deleted, or whose answers were, and
    are in `asked` no more; each was the newest one. `remarks` are what others have said before each
    question, and the last of them. `changed` has the monotonic seconds of each change. All numbers
    rise, over all talks.
    """

    name: str
    asked: list[int] = field(default_factory=list)
    former: dict[int, int] = field(default_factory=dict)
    gone: dict[int, Gone] = field(default_factory=dict)
    remarks: list[int] = field(default_factory=list)
    changed: dict[int, float] = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)  # of each question's message
    is_joined = False  # whether others speak here, too

    async def ask(self, number: int) -> bool:
        """Say a question; False where there is no place for it yet."""
        raise NotImplementedError

    async def repeat(self) -> None:
        """Deliver the event of the newest question once more."""
        raise NotImplementedError

    async def remark(self, number: int) -> None:
        """Let somebody else say something."""
        raise NotImplementedError

    async def edit(self, number: int) -> None:
        """Change the newest question into the one of this number."""
        old = self.asked[-1]
        self.changed[old] = time.monotonic()
        self.asked[-1] = number
        self.former = {one: number if new == old else new for one, new in self.former.items()}
        self.former[old] = number
        await self._edit(old, number)

    async def delete(self) -> None:
        """Delete the newest question; returns when no later one is to show it to the model."""
        number = self.asked.pop()
        self.gone[number], self.changed[number] = "question", time.monotonic()
        await self._delete([self.message_of(number)], of=number)

    async def delete_answer(self) -> None:
        """Delete all messages of the newest answer, in the same way."""
        number = self.asked.pop()
        self.gone[number], self.changed[number] = "answer", time.monotonic()
        await self._delete([one for one, begun in self._begun() if begun == number], of=number)

    def texts(self, number: int) -> list[int]:
        """Return the numbers that a question has had, the newest one last."""
        return [*(old for old, new in self.former.items() if new == number), number]

    def shown(self) -> list[str]:
        """What the bot's messages show."""
        return [text for _, text in self._messages()]

    def buttons(self) -> list[str]:
        """The names of the buttons below the bot's messages."""
        return [button for one in self._screen() for button in one.buttons]

    def is_stoppable(self) -> bool:
        return any(button.startswith("stop") for button in self.buttons())

    def is_begun(self) -> bool:
        """Whether something of the newest answer is shown."""
        return any(number == self.asked[-1] for _, number in self._begun())

    def is_whole(self) -> bool:
        """Whether the newest answer is shown whole."""
        said = bare("".join(self.shown()))
        found = re.search(rf"Answer{self.asked[-1]}(?:heard([\d,]+))?:", said)
        return found is not None and bare(answer_to(self.asked[-1], _heard(found[1]))) in said

    def is_answered(self) -> bool:
        """Whether there seem to be as many answers and apologies as there were questions."""
        shown = self.shown()
        text = bare("".join(shown))
        heads = re.finditer(r"Answer(\d+)(?:heard([\d,]+))?:", text)
        whole = {
            int(head[1]) for head in heads if bare(answer_to(int(head[1]), _heard(head[2]))) in text
        }
        sorry = sum(one.endswith((*APOLOGIES, *ANEW)) for one in shown)
        return len(whole & {*self.asked}) + sorry >= len(self.asked)

    def _begun(self) -> Iterator[tuple[str, int]]:
        """Yield the id of each message of the bot, and the number of its answer, 0 if unknown."""
        number = 0
        for message, text in self._messages():
            found = _BEGINNING.match(text)
            number = int(found[1]) if found else number
            yield message, number

    def _messages(self) -> list[tuple[str, str]]:
        """Return the bot's messages, oldest first: their ids and texts."""
        raise NotImplementedError

    def _screen(self) -> Sequence[DiscordShown | SlackShown]:
        """Return the bot's messages as people see them."""
        raise NotImplementedError

    def message_of(self, number: int) -> str:
        """Return the id of a question's message, which is a part of its turn's id."""
        return self._ids[number]

    async def _edit(self, old: int, new: int) -> None:
        raise NotImplementedError

    async def _delete(self, messages: Sequence[str], *, of: int) -> None:
        raise NotImplementedError


class DiscordTalk(Talk):
    """A "DM", a "thread" that a mention opens, or one in which others spoke, a "joined" one.

    `forgotten` waits until the bot has heard that it is to forget a turn.
    """

    def __init__(
        self, discord: DiscordEmulator, forgotten: Forgotten, kind: str, number: int
    ) -> None:
        super().__init__(f"D-{kind}-{number}")
        self._forgotten = forgotten
        self.is_joined = kind == "joined"
        self._discord = discord
        self._person = discord.user(self.name)
        self._other = discord.user(f"{self.name}-other") if self.is_joined else ""
        self._channel = discord.dm(self._person) if kind == "DM" else ""

    async def ask(self, number: int) -> bool:
        if self._ids and not await self._is_opened():
            return False
        self.asked.append(number)
        where = self._where() or self._discord.channel_id
        self._ids[number] = await self._discord.say(where, self._person, self._text(number))
        return True

    async def repeat(self) -> None:
        await self._discord.redeliver(self._ids[self.asked[-1]])

    async def remark(self, number: int) -> None:
        discord, other = self._discord, self._other
        where = self._channel or discord.channel_id
        message = await discord.say(where, other, remark(number))
        self.remarks.append(number)
        if not self._channel:
            self._channel = await discord.open_thread(message, other, self.name)

    def _messages(self) -> list[tuple[str, str]]:
        return [(one.id, one.text) for one in self._screen()]

    async def _edit(self, old: int, new: int) -> None:
        text = self._text(new, first=self._ids[old] == next(iter(self._ids.values())))
        self._ids[new] = self._ids[old]
        await self._discord.edit(self._ids[new], text)

    async def _delete(self, messages: Sequence[str], *, of: int) -> None:
        # Each session brings what is asked later behind it; but another may have begun since.
        for one in messages:
            await self._discord.delete(one)
        await self._forgotten(f"discord:{self.message_of(of)}")

    def _text(self, number: int, *, first: bool = False) -> str:
        is_called = self.is_joined or not self._where() or (first and not self._channel)
        return f"{self._discord.bot_mention} {question(number)}" if is_called else question(number)

    def _screen(self) -> list[DiscordShown]:
        shown = self._discord.screen(self._where()) if self._where() else []
        return [one for one in shown if one.author_id == self._discord.bot_id and one.text]

    async def _is_opened(self) -> bool:
        with suppress(TimeoutError):
            await until(self._where)
        return bool(self._where())

    def _where(self) -> str:
        first = next(iter(self._ids.values()), "")
        return self._channel or (first and self._discord.thread_of(first)) or ""


class SlackTalk(Talk):
    """A "DM", the "thread" of a mention, or one in which others spoke, a "joined" one.

    `forgotten` is as for Discord.
    """

    def __init__(self, slack: SlackEmulator, forgotten: Forgotten, kind: str, number: int) -> None:
        super().__init__(f"S-{kind}-{number}")
        self._forgotten = forgotten
        self.is_joined, self._dm = kind == "joined", kind == "DM"
        self._slack = slack
        self._person = slack.user(self.name)
        self._other = slack.user(f"{self.name}-other") if self.is_joined else ""
        channel = f"channel-{self.name.lower()}"
        self._channel = slack.dm(self._person) if self._dm else slack.channel(channel)
        self._thread: str | None = None

    async def ask(self, number: int) -> bool:
        self.asked.append(number)
        said = self._slack.say(
            self._channel, self._person, self._text(number), thread_ts=self._thread
        )
        self._ids[number] = await said
        if not self._dm:
            self._thread = self._thread or self._ids[number]
        return True

    async def repeat(self) -> None:
        await self._slack.redeliver(self._ids[self.asked[-1]])

    async def remark(self, number: int) -> None:
        said = self._slack.say(self._channel, self._other, remark(number), thread_ts=self._thread)
        ts = await said
        self.remarks.append(number)
        self._thread = self._thread or ts

    def _messages(self) -> list[tuple[str, str]]:
        return [(one.ts, one.text) for one in self._screen()]

    async def _edit(self, old: int, new: int) -> None:
        self._ids[new] = self._ids[old]
        await self._slack.edit(self._channel, self._ids[new], self._text(new))

    async def _delete(self, messages: Sequence[str], *, of: int) -> None:
        # Slack may tell of it again in minutes; a question that is asked meanwhile comes before.
        known = {one.event_id for one in self._slack.deliveries}
        at = time.monotonic()
        for one in messages:
            # The bot may just have deleted a page that it does not need.
            with suppress(LookupError):
                await self._slack.delete(self._channel, one)
        left = set(messages)
        with suppress(TimeoutError):
            await until(lambda: left <= self._acknowledged(at, but=known), within=DELETING)
        # The acknowledged event may have been another one of the message.
        team = self._slack.team_id
        await self._forgotten(f"slack:{team}:{self._channel}:{self.message_of(of)}")

    def acknowledged(self) -> list[str]:
        """Return the ids of the turns of a DM's questions of which the bot has taken the event."""
        if not self._dm:
            return []
        known = self._acknowledged(0, but=set())
        start = f"slack:{self._slack.team_id}:{self._channel}:"
        return [start + ts for ts in self._ids.values() if ts in known]

    def _acknowledged(self, since: float, *, but: set[str]) -> set[str]:
        tries = (one for one in self._slack.deliveries if one.at >= since)
        return {one.ts for one in tries if one.status == 200 and one.event_id not in but}

    def _text(self, number: int) -> str:
        return question(number) if self._dm else f"{self._slack.bot_mention} {question(number)}"

    def _screen(self) -> list[SlackShown]:
        ours = (self._slack.bot_id, self._slack.bot_user_id)
        shown = self._slack.screen(self._channel, self._thread) if self.asked else []
        return [one for one in shown if one.author in ours and one.text]


def bare(text: str) -> str:
    """Return a text without white space: pages are cut at it."""
    return "".join(text.split())


def _heard(numbers: str | None) -> tuple[int, ...]:
    return tuple(map(int, numbers.split(","))) if numbers else ()
