"""What a typed line does."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Awaitable, Callable, Collection
from typing import get_args

from tests.emulators.faults import How, Terms
from tests.emulators.model import FAILURES, ModelEmulator
from tests.emulators.play.rooms import BOT, GENERAL, Impossible, Sight
from tests.emulators.play.seat import Seat, labels

HELP = """\
TEXT              say it here; @bot calls the bot, @NAME another person
/reply N TEXT     reply to message N; in Slack that is a message in its thread
/ask TEXT         use the bot's own slash command
/private TEXT     ask so that only you see it
/parley NAME [OPTION=VALUE …]
                  use another command of the bot's; values with blanks stand in quotes
/offered NAME [TEXT]
                  tell what completes the first option of such a command
/menu N NAME      choose what the menu of message N offers: ask, or summarise
/fill [INPUT=VALUE …]
                  send the form that is open
/home [BUTTON]    open the bot's Home tab in Slack, or press a button there
/manage [WHAT]    be allowed to manage the channel, the server, or nothing
/role NAME        have a role of a Discord server
/ids              tell the ids of each server, of #general there and of you
/discord, /slack  go to #general there
/channel [NAME]   go to a channel; without a name out of this thread
/thread [N]       go to the thread of message N, or to the newest one
/dm               go to your DM with the bot
/as NAME          be another person
/click N [BUTTON] press a button of message N
/edit N TEXT      change a message of yours
/delete N         delete a message
/stop             press Slack's own stop button
/screen           show all that stands here
/wait [SECONDS]   wait until the bot has answered
/model [TEXT]     let the emulated model say this from now on; without a text what it said first
/speed N [FIRST]  let it say N characters a second, and begin after FIRST seconds
/fail CALL HOW    let a call of the bot go wrong: /fail chat.update 429 times=2 retry_after=3.
                  CALL stands in its name; HOW is a status, drop, hang or late; times, after,
                  retry_after, seconds, applied=1 may follow
/fail model HOW   let the model's answer go wrong: HOW may also be reset, eof, garbage, error_event
                  or a name, with times and after: /fail model loading times=2
/heal             let every call go well again
/quit             leave"""

PATIENCE = 60.0  # seconds that /wait waits
_HOWS: tuple[How, ...] = get_args(How)
_EVERYWHERE = _HOWS[:4]  # others are for the model alone

Command = Callable[[str], Awaitable[None] | None]


def talk(messages: list[dict[str, str]]) -> str:
    """Answer as the emulated model does at first: long enough to be seen growing."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    return (
        f"You said: {said[-1] if said else 'nothing'}\n\n"
        "I am the **emulated model**. The quick brown fox jumps over the lazy dog, "
        "and `code` stays code:\n```python\nprint(1 < 2)\n```\n"
        "/model lets me say something else."
    )


class Commands:
    """Takes typed lines; the emulated model is None where a real one answers."""

    def __init__(self, seat: Seat, model: ModelEmulator | None) -> None:
        self._seat = seat
        self._model = model
        self.by_name: dict[str, Command] = {
            "reply": self._reply,
            "ask": self._ask,
            "private": self._ask_privately,
            "parley": self._use,
            "offered": self._tell_offered,
            "menu": self._choose,
            "fill": self._fill,
            "home": self._go_home,
            "manage": self._manage,
            "role": self._take_role,
            "ids": self._tell_ids,
            "discord": lambda _: self._go_to_platform("discord"),
            "slack": lambda _: self._go_to_platform("slack"),
            "channel": self._go_to_channel,
            "thread": self._go_to_thread,
            "dm": self._go_to_dm,
            "as": self._become,
            "click": self._click,
            "edit": self._edit,
            "delete": self._delete,
            "stop": self._stop,
            "screen": lambda _: seat.stage.forget(),
            "wait": self._wait,
            "model": self._set_model,
            "speed": self._set_speed,
            "fail": self._fail,
            "heal": self._heal,
            "help": lambda _: seat.stage.note(HELP),
        }

    async def obey(self, line: str) -> bool:
        """Do what the line says, or tell why it cannot be done; False when it says /quit."""
        line = line.strip()
        if line == "/quit":
            return False
        try:
            await self._do(line)
        except Impossible as refusal:
            self._seat.stage.note(str(refusal))
        except Exception as error:
            # Whatever an emulator says to it, the play goes on.
            self._seat.stage.note(f"That cannot be done: {error}")
        self._seat.look()
        return True

    async def _do(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if not line.startswith("/"):
            await self._say(line)
        elif command := self.by_name.get(name[1:]):
            if under_way := command(rest.strip()):
                await under_way
        else:
            raise Impossible(f"There is no {name}; /help tells what there is.")

    async def _say(self, text: str) -> None:
        if text:
            self._seat.call()
            await self._seat.rooms.say(self._seat.room, self._seat.person, text)

    async def _reply(self, words: str) -> None:
        wanted, _, text = words.partition(" ")
        sight = self._lasting(wanted)
        if not text:
            raise Impossible("With which words? Such as /reply 1 Hello.")
        self._seat.call()
        await self._seat.rooms.reply(sight.id, self._seat.person, text)

    async def _ask(self, text: str) -> None:
        self._seat.call()
        await self._seat.rooms.ask(self._seat.room, self._seat.person, text)

    async def _ask_privately(self, text: str) -> None:
        self._seat.call()
        options = {"question": text, "private": "yes"}
        await self._seat.rooms.use(self._seat.room, self._seat.person, "ask", options)

    async def _use(self, words: str) -> None:
        name, _, rest = words.partition(" ")
        self._seat.call()
        await self._seat.rooms.use(
            self._seat.room, self._seat.person, f"parley {name}", _options(rest)
        )

    async def _tell_offered(self, words: str) -> None:
        name, _, typed = words.partition(" ")
        seat = self._seat
        found = await seat.rooms.offered(seat.room, seat.person, f"parley {name}", typed)
        seat.stage.note(f"Offered: {', '.join(found) or 'nothing'}")

    async def _choose(self, words: str) -> None:
        wanted, _, action = words.partition(" ")
        self._seat.call()
        await self._seat.rooms.choose(self._lasting(wanted).id, self._seat.person, action)

    async def _fill(self, words: str) -> None:
        self._seat.call()
        await self._seat.rooms.fill(self._seat.person, _options(words))

    async def _go_home(self, button: str) -> None:
        for line in await self._seat.rooms.home(self._seat.person, button.strip("[] ")):
            self._seat.stage.note(line)

    def _manage(self, what: str) -> None:
        self._seat.rooms.allow(self._seat.person, what)
        self._seat.stage.note(f"{self._seat.person} may manage {what or 'nothing'}.")

    def _take_role(self, name: str) -> None:
        if not name:
            raise Impossible("Which role? Such as /role Crew.")
        role = self._seat.rooms.give_role(self._seat.person, name)
        self._seat.stage.note(f"{self._seat.person} has the role {name}, {role}.")

    def _tell_ids(self, _: str) -> None:
        for rooms in self._seat.platforms.values():
            told = rooms.ids(rooms.channel(GENERAL), self._seat.person).items()
            self._seat.stage.note(f"{rooms.name}: {', '.join(' '.join(one) for one in told)}")

    def _go_to_platform(self, name: str) -> None:
        rooms = self._seat.platforms[name]
        self._seat.enter(rooms, rooms.channel(GENERAL))

    def _go_to_channel(self, name: str) -> None:
        rooms = self._seat.rooms
        around = self._seat.room.hangs_on or rooms.channel(GENERAL)
        self._seat.enter(rooms, rooms.channel(name.removeprefix("#")) if name else around)

    def _go_to_thread(self, word: str) -> None:
        seat = self._seat
        if seat.room.hangs_on:
            raise Impossible("You are in a thread; /channel leads out.")
        parent = seat.thread(word).id
        seat.enter(seat.rooms, seat.rooms.thread(seat.room, parent, seat.number(parent)))

    def _go_to_dm(self, _: str) -> None:
        self._seat.enter(self._seat.rooms, self._seat.rooms.dm(self._seat.person))

    def _become(self, name: str) -> None:
        seat = self._seat
        if not name.isidentifier() or name.lower() in ("bot", BOT):
            raise Impossible("A person is called by one word, such as /as Ben.")
        # Nobody sees the DM of another.
        private = seat.rooms.dm(seat.person) in (seat.room, seat.room.hangs_on)
        seat.person = name
        seat.enter(seat.rooms, seat.rooms.dm(name) if private else seat.room)

    async def _click(self, words: str) -> None:
        wanted, _, button = words.partition(" ")
        sight = self._seat.find(wanted)
        sought, named = button.strip("[] ").lower(), zip(sight.buttons, labels(sight), strict=True)
        found = [id_ for id_, label in named if label.lower().startswith(sought)]
        if len(found) != 1:
            raise Impossible(f"Which button? It has {', '.join(labels(sight)) or 'none'}.")
        self._seat.call()
        await self._seat.rooms.click(sight.id, self._seat.person, found[0])

    async def _edit(self, words: str) -> None:
        wanted, _, text = words.partition(" ")
        sight = self._seat.find(wanted)
        if sight.author != self._seat.person:
            raise Impossible(f"Only {sight.author} can change that.")
        if not text:
            raise Impossible("Into which text? Such as /edit 1 Hello.")
        self._seat.call()
        await self._seat.rooms.edit(sight.id, text)

    async def _delete(self, wanted: str) -> None:
        await self._seat.rooms.delete(self._lasting(wanted).id)

    def _lasting(self, number: str) -> Sight:
        """Return the message of this number; Impossible where only one person sees it."""
        sight = self._seat.find(number)
        if sight.whispered:
            raise Impossible(f"Only you see message {number}: you cannot answer or delete it.")
        return sight

    async def _stop(self, _: str) -> None:
        await self._seat.rooms.stop(self._seat.room, self._seat.person)

    async def _wait(self, word: str) -> None:
        patience = _number(word) if word else PATIENCE
        try:
            async with asyncio.timeout(patience):
                await self._seat.answered()
        except TimeoutError:
            raise Impossible(f"The bot was not done within {patience:g} seconds.") from None

    def _set_model(self, text: str) -> None:
        self._emulated.answer = text or talk
        self._seat.stage.note("The model says that from now on.")

    def _set_speed(self, words: str) -> None:
        speed, _, first = words.partition(" ")
        per_second = _number(speed)
        if not per_second:
            raise Impossible("It would never end.")
        self._emulated.first_delay = _number(first) if first else 0.0
        self._emulated.delay = self._emulated.chunk / per_second
        begin = f", and begins after {first} seconds" if first else ""
        self._seat.stage.note(f"The model says {speed} characters a second{begin}.")

    @property
    def _emulated(self) -> ModelEmulator:
        if self._model is None:
            raise Impossible("A real model answers: nobody can tell it what to say.")
        return self._model

    def _fail(self, words: str) -> None:
        call, _, how = words.partition(" ")
        if call == "model":
            self._fail_model(how)
            self._seat.stage.note(f"The model will fail: {how}")
        else:
            named, way, terms = _read_fault(words, _EVERYWHERE)
            self._seat.rooms.emulator.fail(named, way, **terms)
            self._seat.stage.note(f"{self._seat.rooms.name} will fail: {words}")

    def _fail_model(self, how: str) -> None:
        name = re.sub(r"(\s+\w+=\S*)+$", "", how)
        if name in FAILURES:
            told = _read_terms(how[len(name) :].split(), ("times", "after"))
            times, after = int(told.get("times", 1)), int(told.get("after", 0))
            self._emulated.fail_as(name, times=times, after=after)
        elif how:
            call, way, terms = _read_fault(f"completions {how}", _HOWS)
            self._emulated.fail(call, way, **terms)
        else:
            raise Impossible(f"How is it to fail? Such as: {', '.join(FAILURES)}.")

    def _heal(self, _: str) -> None:
        names = [rooms.name for rooms in self._seat.platforms.values()]
        for rooms in self._seat.platforms.values():
            rooms.emulator.heal()
        if self._model:
            self._model.heal()
            names.append("the model")
        self._seat.stage.note(f"All goes well again: {', '.join(names)}.")


def _options(words: str) -> dict[str, str]:
    """Read NAME=VALUE …, with blanks in quotes."""
    try:
        pairs = [word.partition("=") for word in shlex.split(words)]
    except ValueError as error:
        raise Impossible(f"That cannot be read: {error}.") from None
    if not all(name and sign for name, sign, _ in pairs):
        raise Impossible('Write NAME=VALUE, with blanks in quotes: text="Be brief".')
    return {name: value for name, _, value in pairs}


_TERMS = ("times", "after", "retry_after", "seconds", "applied")


def _read_fault(text: str, hows: Collection[How]) -> tuple[str, How, Terms]:
    """Read `CALL HOW [NAME=VALUE …]` as the words of an emulator's `fail`.

    HOW is one of `hows`, or a status.
    Impossible, with a sentence, where the text says nothing.
    """
    words = text.split()
    by_word: dict[str, How] = {how: how for how in hows}
    for at, word in enumerate(words[1:], start=1):
        if word in by_word or re.fullmatch(r"[1-5]\d\d", word):
            told = _read_terms(words[at + 1 :], _TERMS)
            terms: Terms = {
                "status": 500 if word in by_word else int(word),
                "times": int(told.get("times", 1)),
                "after": int(told.get("after", 0)),
                "retry_after": told.get("retry_after"),
                "seconds": told.get("seconds", 0.0),
                "applied": bool(told.get("applied")),
            }
            return _call(words[:at]), by_word.get(word, "status"), terms
    raise Impossible(f"How is it to fail? CALL, then a status or one of {', '.join(by_word)}.")


def _read_terms(words: Collection[str], known: Collection[str]) -> dict[str, float]:
    """Read `NAME=VALUE …`, with the names that are known."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise Impossible(f"{name} is none of {', '.join(known)}.")
        found[name] = _number(value)
    return found


def _number(word: str) -> float:
    """Return the number above or at zero that a word is; Impossible when it is none."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise Impossible(f"{word or 'Nothing'} is no number that can be used here.")
    return value


def _call(words: list[str]) -> str:
    call = " ".join(words)
    try:
        re.compile(call)
    except re.error as error:
        raise Impossible(f"{call} is no regular expression: {error}.") from None
    return call
