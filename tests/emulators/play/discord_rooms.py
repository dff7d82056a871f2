"""Discord's channels, threads and DMs as rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord.objects import Payload
from tests.emulators.play.rooms import (
    BOT,
    GENERAL,
    Impossible,
    People,
    Room,
    Sight,
    described_input,
    standing_sign,
)

_PEOPLE, _ROLES = 5, 6  # docs: Component Types, selects of people and of roles
_MENU = 3  # docs: Application Command Types, of a message
_ANSWER_SECONDS = 3.0  # docs: Receiving and Responding
_TYPING_SECONDS = 10.0  # docs: Trigger Typing Indicator, "expires after 10 seconds"


class DiscordRooms:
    """The rooms of an emulated Discord; a message's id is Discord's."""

    name = "Discord"

    def __init__(self, emulator: DiscordEmulator) -> None:
        self.emulator = emulator
        self._people = People(emulator.user, [emulator.bot_id])
        self._channels = {GENERAL: emulator.channel_id}
        self._roles: dict[str, str] = {}
        self._open: dict[str, str] = {}  # by person, what may have opened a form

    @property
    def bot_is_here(self) -> bool:
        return self.emulator.connected.is_set()

    def channel(self, name: str) -> Room:
        if name not in self._channels:
            self._channels[name] = self.emulator.channel(name)
        return Room(f"Discord #{name}", self._channels[name])

    def dm(self, person: str) -> Room:
        return Room("Discord DM", self.emulator.dm(self._people.id(person)))

    def thread(self, room: Room, message: str, number: int) -> Room:
        thread = self.emulator.thread_of(message)
        if thread is None:
            raise Impossible(f"{number} has no thread: the bot opens one when it is mentioned.")
        return Room(f"{room.title}, thread {number}", thread, hangs_on=room)

    async def say(self, room: Room, person: str, text: str) -> None:
        user = self._people.id(person)
        await self.emulator.say(room.channel, user, self._people.spoken(text))

    async def reply(self, message: str, person: str, text: str) -> None:
        place = str(self.emulator.event_of(message)["channel_id"])
        user, spoken = self._people.id(person), self._people.spoken(text)
        await self.emulator.say(place, user, spoken, reply_to=message)

    async def ask(self, room: Room, person: str, text: str) -> None:
        await self.emulator.slash(room.channel, self._people.id(person), "ask", question=text)

    async def use(self, room: Room, person: str, command: str, options: Mapping[str, str]) -> None:
        given = {name: _given(name, value) for name, value in options.items()}
        user = self._people.id(person)
        self._open[person] = await self.emulator.slash(room.channel, user, command, **given)

    async def offered(self, room: Room, person: str, command: str, typed: str) -> list[str]:
        user = self._people.id(person)
        asked = await self.emulator.complete(room.channel, user, command, "name", typed)
        async with asyncio.timeout(_ANSWER_SECONDS):
            while (choices := self.emulator.choices(asked)) is None:
                await asyncio.sleep(0.01)
        return [str(one["value"]) for one in choices if isinstance(one, dict)]

    async def choose(self, message: str, person: str, action: str) -> None:
        names = [str(one["name"]) for one in self.emulator.commands if one["type"] == _MENU]
        found = [one for one in names if one.lower().startswith(action.lower())]
        if len(found) != 1:
            raise Impossible(f"Which one? The menu has {', '.join(names) or 'nothing'}.")
        user = self._people.id(person)
        self._open[person] = await self.emulator.choose(message, user, found[0])

    def form(self, person: str) -> str | None:
        form = self.emulator.modal(self._open[person]) if person in self._open else None
        return described_form(form) if form else None

    async def fill(self, person: str, values: Mapping[str, str]) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while self.form(person) is None:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise Impossible("No form is open.") from None
        opened = self._open[person]
        kinds = _kinds(self.emulator.modal(opened) or {})
        filled: dict[str, str | list[str]] = dict(values)
        for name, text in values.items():
            listed = [one for one in text.split(",") if one]
            if kinds.get(name) == _PEOPLE:
                filled[name] = [self._people.id(one) for one in listed]
            elif kinds.get(name) == _ROLES:
                filled[name] = [self._roles[one] for one in listed if one in self._roles]
        self._open[person] = await self.emulator.submit(opened, **filled)

    def allow(self, person: str, right: str) -> None:
        if right not in ("", "channel", "server"):
            raise Impossible("What may be managed? /manage channel, or server, or nothing.")
        self.emulator.allow(self._people.id(person), right)

    def give_role(self, person: str, name: str) -> str:
        if name not in self._roles:
            self._roles[name] = self.emulator.role(name)
        self.emulator.give_role(self._people.id(person), self._roles[name])
        return self._roles[name]

    def ids(self, room: Room, person: str) -> Mapping[str, str]:
        found = {"channel": room.channel, person: self._people.id(person)}
        return {"server": self.emulator.guild_id, **found}

    async def home(self, person: str, button: str) -> list[str]:
        raise Impossible("Discord has no home of a bot.")

    async def click(self, message: str, person: str, button: str) -> None:
        user = self._people.id(person)
        self._open[person] = await self.emulator.click(message, user, button)

    async def edit(self, message: str, text: str) -> None:
        await self.emulator.edit(message, self._people.spoken(text))

    async def delete(self, message: str) -> None:
        await self.emulator.delete(message)

    async def stop(self, room: Room, person: str) -> None:
        raise Impossible("Discord has no stop button of its own: /click the message's.")

    def sights(self, room: Room, person: str) -> list[Sight]:
        return list(self._sights(room.channel, self._people.id(person), within=0))

    def signs(self, room: Room) -> list[str]:
        return [f"{BOT} is typing…" for place in self._places(room) if self._types_in(place)]

    def _sights(self, place: str, user: str, *, within: int) -> Iterator[Sight]:
        for shown in self.emulator.screen(place):
            if shown.reader not in (None, user):
                continue
            yield Sight(
                id=shown.id,
                author=self._people.name(shown.author_id),
                text=self._people.readable(shown.text),
                buttons=shown.buttons,
                labels=shown.labels,
                edited=shown.edited,
                whispered=shown.ephemeral,
                within=within,
                reply_to=shown.reply_to,
            )
            if thread := self.emulator.thread_of(shown.id):
                yield from self._sights(thread, user, within=within + 1)

    def _places(self, room: Room) -> list[str]:
        screen = self.emulator.screen(room.channel)
        opened = (self.emulator.thread_of(shown.id) for shown in screen)
        return [room.channel, *(thread for thread in opened if thread)]

    def _types_in(self, place: str) -> bool:
        bot, screen = self.emulator.bot_id, self.emulator.screen(place)
        ours = {shown.id for shown in screen if shown.author_id == bot}
        moments = self.emulator.timeline(place)
        return standing_sign(moments, ours, seconds=_TYPING_SECONDS) is not None


def described_form(form: Payload) -> str:
    """Return a form: its title, and a line for each input with what it holds."""
    inputs = [_described_input(one) for one in _labels(form)]
    return "\n".join([str(form["title"]), *inputs])


def _labels(form: Payload) -> list[dict[str, Any]]:
    parts = form.get("components")
    return [one for one in parts if "component" in one] if isinstance(parts, list) else []


def _kinds(form: Payload) -> dict[str, int]:
    """Return the kinds of the inputs of a form by their names."""
    inputs = (one["component"] for one in _labels(form))
    return {held["custom_id"]: held["type"] for held in inputs}


def _described_input(label: dict[str, Any]) -> str:
    held = label["component"]
    options = held.get("options") or []
    chosen = [str(one["value"]) for one in options if one.get("default")]
    chosen += [str(one["id"]) for one in held.get("default_values") or []]
    return described_input(
        held["custom_id"],
        str(label["label"]),
        held=held.get("value") or ",".join(chosen),
        options={str(one["value"]): str(one["label"]) for one in options},
    )


def _given(name: str, value: str) -> str | bool:
    return value.lower() in ("yes", "true", "on") if name == "private" else value
