"""Slack's channels, threads and DMs as rooms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from tests.emulators.play.rooms import (
    BOT,
    GENERAL,
    Impossible,
    People,
    Room,
    Sight,
    described_input,
)
from tests.emulators.slack import Shown, SlackEmulator, View

# The shortcuts of the app's manifest, by their names.
_MENU = {"Ask about this": "ask_about", "Summarise from here": "summarise"}
_WHISPER = "ephemeral"  # in the id of a message that one person alone sees
_HOME_SECONDS = 5.0


class SlackRooms:
    """The rooms of an emulated Slack; a message's id is `channel/ts`."""

    name = "Slack"

    def __init__(self, emulator: SlackEmulator) -> None:
        self.emulator = emulator
        self._bots = (emulator.bot_user_id, emulator.bot_id)
        self._people = People(emulator.user, self._bots)
        self._channels = {GENERAL: emulator.channel_id}

    @property
    def bot_is_here(self) -> bool:
        return self.emulator.connected.is_set()

    def channel(self, name: str) -> Room:
        if name not in self._channels:
            self._channels[name] = self.emulator.channel(name)
        return Room(f"Slack #{name}", self._channels[name])

    def dm(self, person: str) -> Room:
        return Room("Slack DM", self.emulator.dm(self._people.id(person)))

    def thread(self, room: Room, message: str, number: int) -> Room:
        channel, ts = message.split("/")
        return Room(f"{room.title}, thread {number}", channel, thread=ts, hangs_on=room)

    async def say(self, room: Room, person: str, text: str) -> None:
        user, spoken = self._people.id(person), self._people.spoken(text)
        await self.emulator.say(room.channel, user, spoken, thread_ts=room.thread)

    async def reply(self, message: str, person: str, text: str) -> None:
        # Slack has no replies but those in threads, which hang on a message of the top level.
        channel, ts = message.split("/")
        (shown,) = (it for it in self.emulator.screen(channel, ts) if it.ts == ts)
        user, spoken = self._people.id(person), self._people.spoken(text)
        await self.emulator.say(channel, user, spoken, thread_ts=shown.thread_ts or ts)

    async def ask(self, room: Room, person: str, text: str) -> None:
        if room.thread:
            raise Impossible("Slack takes no commands in threads: leave it with /channel.")
        user, spoken = self._people.id(person), self._people.spoken(text)
        delivery = await self.emulator.slash(room.channel, user, "/ask", spoken)
        if delivery.status != 200:
            raise Impossible("/ask failed because the app did not respond.")

    async def use(self, room: Room, person: str, command: str, options: Mapping[str, str]) -> None:
        name, _, words = command.partition(" ")
        if name != "parley":
            raise Impossible("Slack has no private questions.")
        if room.thread:
            raise Impossible(f"Slack takes no commands in threads: say @bot /{command}.")
        typed = self._people.spoken(" ".join((words, *options.values())))
        delivery = await self.emulator.slash(
            room.channel, self._people.id(person), f"/{name}", typed
        )
        if delivery.status != 200:
            raise Impossible(f"/{name} failed because the app did not respond.")

    async def offered(self, room: Room, person: str, command: str, typed: str) -> list[str]:
        raise Impossible("Slack completes no commands.")

    async def choose(self, message: str, person: str, action: str) -> None:
        found = [id_ for name, id_ in _MENU.items() if name.lower().startswith(action.lower())]
        if len(found) != 1:
            raise Impossible(f"Which one? The menu has {', '.join(_MENU)}.")
        channel, ts = message.split("/")
        await self.emulator.choose(channel, ts, self._people.id(person), found[0])

    def form(self, person: str) -> str | None:
        view = self.emulator.modal(self._people.id(person))
        if view is None:
            return None
        fields = [_described_input(view, name) for name in view.fields]
        texts = [] if fields else view.texts
        errors = [f"  {name}: {why}" for name, why in view.errors.items()]
        return "\n".join([view.title, *texts, *fields, *errors])

    async def fill(self, person: str, values: Mapping[str, str]) -> None:
        user = self._people.id(person)
        view = self.emulator.modal(user)
        if view is None:
            raise Impossible("No form is open.")
        if not view.fields:
            view.is_open = False  # there is only something to read
            return
        filled: dict[str, str | list[str]] = dict(values)
        for name in view.people & values.keys():
            filled[name] = [self._people.id(one) for one in values[name].split(",") if one]
        await self.emulator.submit(user, **filled)

    def allow(self, person: str, right: str) -> None:
        if right not in ("", "channel", "server"):
            raise Impossible("What may be managed? /manage channel, or server, or nothing.")
        user = self._people.id(person)
        self.emulator.set_role(user, "admin" if right == "server" else None)
        for channel in self._channels.values():
            self.emulator.set_creator(channel, user if right == "channel" else None)

    def give_role(self, person: str, name: str) -> str:
        raise Impossible("Slack has no roles.")

    def ids(self, room: Room, person: str) -> Mapping[str, str]:
        found = {"channel": room.channel, person: self._people.id(person)}
        return {"workspace": self.emulator.team_id, **found}

    async def home(self, person: str, button: str) -> list[str]:
        user = self._people.id(person)
        if button:
            view = self.emulator.home(user)
            action = _action(view.labels if view else {}, button)
            await self.emulator.press_home(user, action)
            return []
        before = self.emulator.home(user)
        await self.emulator.open_home(user, tab="home")
        async with asyncio.timeout(_HOME_SECONDS):
            while (view := self.emulator.home(user)) is before or view is None:
                await asyncio.sleep(0.01)
        return [*view.texts, *(f"[{label}]" for label in view.labels.values())]

    async def click(self, message: str, person: str, button: str) -> None:
        channel, ts = message.split("/")
        if channel == _WHISPER:
            said = self.emulator.ephemerals[int(ts)]
            await self.emulator.press(said, _action(said.buttons, button))
            return
        await self.emulator.click(channel, ts, self._people.id(person), button)

    async def edit(self, message: str, text: str) -> None:
        channel, ts = message.split("/")
        await self.emulator.edit(channel, ts, self._people.spoken(text))

    async def delete(self, message: str) -> None:
        channel, ts = message.split("/")
        await self.emulator.delete(channel, ts)

    async def stop(self, room: Room, person: str) -> None:
        if room.thread is None:
            raise Impossible("Slack's stop button stands in a thread: enter it with /thread.")
        try:
            await self.emulator.stop(room.channel, room.thread, self._people.id(person))
        except LookupError:
            raise Impossible("There is no stop button: no session is processing here.") from None

    def sights(self, room: Room, person: str) -> list[Sight]:
        return [*self._sights(room), *self._whispers(room, person)]

    def signs(self, room: Room) -> list[str]:
        threads = filter(None, self._threads(room))
        signs = (self.emulator.shown_status(room.channel, thread) for thread in threads)
        return [f"{BOT} {text}" for text in signs if text]

    def _sights(self, room: Room) -> Iterator[Sight]:
        for shown in self.emulator.screen(room.channel, room.thread):
            yield self._sight(shown, within=0)
            if room.thread is None:
                for reply in self.emulator.screen(room.channel, shown.ts)[1:]:
                    yield self._sight(reply, within=1)

    def _sight(self, shown: Shown, *, within: int) -> Sight:
        changed = len(self.emulator.states(shown.channel_id, shown.ts)) > 1
        return Sight(
            id=f"{shown.channel_id}/{shown.ts}",
            author=self._people.name(shown.author),
            text=self._people.readable(shown.text),
            buttons=shown.buttons,
            labels=shown.labels,
            # How Slack marks what an app has updated is not documented.
            edited=changed and self._people.has(shown.author),
            within=within,
        )

    def _whispers(self, room: Room, person: str) -> Iterator[Sight]:
        user = self._people.id(person)
        for number, words in enumerate(self.emulator.ephemerals):
            is_here = room.thread in (None, words.thread_ts)
            if is_here and (words.channel_id, words.user_id) == (room.channel, user):
                text = self._people.readable(words.text)
                pressed = tuple(words.buttons.values())
                yield Sight(f"{_WHISPER}/{number}", BOT, text, buttons=pressed, whispered=True)

    def _threads(self, room: Room) -> list[str | None]:
        if room.thread:
            return [room.thread]
        return [None, *(shown.ts for shown in self.emulator.screen(room.channel))]


def _described_input(view: View, name: str) -> str:
    return described_input(name, view.label(name), held=view.held(name), options=view.options(name))


def _action(labels: Mapping[str, str], button: str) -> str:
    """Return the action id of the button whose label begins so."""
    found = [id_ for id_, label in labels.items() if label.lower().startswith(button.lower())]
    if len(found) != 1:
        raise Impossible(f"Which button? There is {', '.join(labels.values()) or 'none'}.")
    return found[0]
