"""Where a person sits, and what stands before them."""

from __future__ import annotations

import asyncio
import time

from tests.emulators.play.discord_rooms import DiscordRooms
from tests.emulators.play.rooms import BOT, GENERAL, Impossible, Room, Sight
from tests.emulators.play.slack_rooms import SlackRooms
from tests.emulators.play.stage import Stage

Rooms = DiscordRooms | SlackRooms

_QUIET = 1.0  # seconds without a change after which an answer is taken for complete
_TICK = 0.05  # seconds


class Seat:
    """One person at a time in one room at a time; every message has a number for good."""

    def __init__(self, *, discord: DiscordRooms, slack: SlackRooms, stage: Stage) -> None:
        self.platforms: dict[str, Rooms] = {"discord": discord, "slack": slack}
        self.rooms: Rooms = discord
        self.room = discord.channel(GENERAL)
        self.person = "Ann"
        self.stage = stage
        self.standing: dict[str, Sight] = {}  # what stands in the room
        self._seen: dict[str, Sight] = {}  # and what has stood there since they came
        self.signs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._arrived: set[str] = set()
        self._heard: set[tuple[str, str]] = set()
        self._messages: dict[str, str] = {}
        self._changed_at = time.monotonic()
        self._form: str | None = None

    @property
    def prompt(self) -> str:
        """What stands before a line that is being typed."""
        return f"{self.room.title}, {self.person}> "

    async def watch(self) -> None:
        """Keep the stage true until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_TICK)

    def look(self) -> None:
        """Show what stands in the room now."""
        self.greet()
        self.standing = {it.id: it for it in self.rooms.sights(self.room, self.person)}
        self._seen |= self.standing
        messages = {
            key: self._described(sight, gone=key not in self.standing)
            for key, sight in (self.standing | self._seen).items()
        }
        signs = self.rooms.signs(self.room)
        if (messages, signs) != (self._messages, self.signs):
            self._messages, self.signs = messages, signs
            self._changed_at = time.monotonic()
        self._tell_form()
        self.stage.show(messages, signs, self.prompt)

    def _tell_form(self) -> None:
        form = self.rooms.form(self.person)
        if form and form != self._form:
            self.stage.note(f"A form is open: {form}\n/fill sends it.")
        self._form = form

    def greet(self) -> None:
        """Tell of a platform in which the bot has arrived."""
        for rooms in self.platforms.values():
            if rooms.bot_is_here and rooms.name not in self._arrived:
                self._arrived.add(rooms.name)
                self.stage.note(f"The bot is in {rooms.name}.")

    def enter(self, rooms: Rooms, room: Room) -> None:
        """Go to a room and show all that stands there."""
        self.rooms, self.room = rooms, room
        self._seen = {}
        self.stage.forget()
        self.stage.note(f"--- {room.title}, as {self.person}")

    def number(self, message: str) -> int:
        """Return the message's number."""
        return self._numbers.setdefault(message, len(self._numbers) + 1)

    def find(self, number: str) -> Sight:
        """Return the message of this number; Impossible when it does not stand here."""
        self.look()
        for key, sight in self.standing.items():
            if str(self.number(key)) == number:
                return sight
        raise Impossible(f"There is no message {number or 'without a number'} here.")

    def thread(self, number: str) -> Sight:
        """Return the message on which the thread of this one hangs; without a number the newest."""
        wanted = self.find(number) if number else self._newest()
        sights = list(self.standing.values())
        above = reversed(sights[: sights.index(wanted) + 1])
        return next((sight for sight in above if not sight.within), wanted)

    def _described(self, sight: Sight, *, gone: bool) -> str:
        number = self.number(sight.id)
        answered = self.number(sight.reply_to) if sight.reply_to else 0
        return described(sight, number, gone=gone, answered=answered)

    def _newest(self) -> Sight:
        self.look()
        sights = list(self.standing.values())
        if not sights:
            raise Impossible("Nothing stands here yet.")
        return next((sight for sight in reversed(sights) if sight.within), sights[-1])

    def call(self) -> None:
        """Remember what the bot has said so far: what comes now is its answer."""
        self.look()
        self._heard = {(it.id, it.text) for it in self.standing.values()}
        if not self.rooms.bot_is_here:
            self.stage.note(f"No bot is in {self.rooms.name} to hear this.")

    async def answered(self) -> None:
        """Return when the bot has said something since it was called, and seems to be done."""
        while not self._is_answered():
            await asyncio.sleep(_TICK)

    def _is_answered(self) -> bool:
        said = {(it.id, it.text) for it in self.standing.values() if it.author == BOT and it.text}
        can_be_stopped = any(
            it.startswith("stop") for s in self.standing.values() for it in s.buttons
        )
        is_quiet = time.monotonic() - self._changed_at > _QUIET
        return bool(said - self._heard) and is_quiet and not can_be_stopped and not self.signs


def described(sight: Sight, number: int, *, gone: bool, answered: int = 0) -> str:
    """Return a message as it is shown: its number, who said what, and what can be pressed.

    `answered` is the number of the message that it replies to, if it does.
    """
    margin = "    " * sight.within
    if gone:
        return f"{margin}{number:>2} (deleted)"
    first, *others = sight.text.split("\n")
    marks = [f"(reply to {answered})"] if answered else []
    marks += [f"[{label}]" for label in labels(sight)]
    marks += ["(edited)"] * sight.edited + ["(only you see this)"] * sight.whispered
    lines = [f"{number:>2} {sight.author}: {first or '…'}"]
    lines += [f"   {line}" for line in (*others, " ".join(marks))]
    return "\n".join(f"{margin}{line}".rstrip() for line in lines).rstrip()


def labels(sight: Sight) -> list[str]:
    """Return what stands on the buttons that can be pressed."""
    told = len(sight.labels) == len(sight.buttons)
    return list(sight.labels if told else sight.buttons)
