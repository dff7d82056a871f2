"""The chat: rooms with messages, over HTTP.

python -m parley_loopback.server        serves 127.0.0.1:7007
curl -d '{"author": "ann", "text": "Why?"}' 127.0.0.1:7007/rooms/lobby
curl 127.0.0.1:7007/rooms/lobby
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field

from aiohttp import web

LONGEST = 2000  # characters of a message
BOT = "parley"  # how the bot signs its messages


@dataclass(slots=True)
class Message:
    """A message; one with a `key` is posted once, however often that is asked."""

    id: int
    room: str
    author: str
    text: str
    key: str = ""


@dataclass(slots=True)
class Chat:
    """All rooms. `events` has what people did, by number: a new message or a deleted one."""

    messages: dict[int, Message] = field(default_factory=dict)
    events: list[dict[str, object]] = field(default_factory=list)
    _count: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def room(self, name: str) -> list[Message]:
        """Return the messages of a room, oldest first."""
        return [one for one in self.messages.values() if one.room == name]

    def say(self, room: str, author: str, text: str, key: str = "") -> Message:
        """Post a message, or return the one that has this key."""
        found = next((one for one in self.room(room) if key and one.key == key), None)
        if found is None:
            self._count += 1
            found = self.messages[self._count] = Message(self._count, room, author, text, key)
            if author != BOT:
                self._note("said", found)
        return found

    def delete(self, number: int) -> None:
        """Delete a message."""
        gone = self.messages.pop(number)
        if gone.author != BOT:
            self._note("deleted", gone)

    async def after(self, number: int, seconds: float = 20.0) -> list[dict[str, object]]:
        """Return the events after this many, as soon as there is one."""
        if len(self.events) <= number:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return []
        return self.events[number:]

    def _note(self, what: str, message: Message) -> None:
        self.events.append({"what": what, **asdict(message)})
        self._news.set()


def application(chat: Chat) -> web.Application:
    """Return the server of a chat."""
    routes = web.RouteTableDef()

    def message_of(request: web.Request) -> Message:
        found = chat.messages.get(int(request.match_info["id"]))
        if found is None:
            raise web.HTTPNotFound
        return found

    async def text_of(request: web.Request) -> dict[str, str]:
        body: dict[str, str] = await request.json()
        if not 0 < len(body["text"]) <= LONGEST:
            raise web.HTTPBadRequest
        return body

    @routes.post("/rooms/{room}")
    async def say(request: web.Request) -> web.Response:
        body = await text_of(request)
        room = request.match_info["room"]
        said = chat.say(room, body["author"], body["text"], body.get("key", ""))
        return web.json_response(asdict(said))

    @routes.get("/rooms/{room}")
    async def read(request: web.Request) -> web.Response:
        return web.json_response([asdict(one) for one in chat.room(request.match_info["room"])])

    @routes.patch("/messages/{id}")
    async def edit(request: web.Request) -> web.Response:
        message = message_of(request)
        message.text = (await text_of(request))["text"]
        return web.json_response(asdict(message))

    @routes.delete("/messages/{id}")
    async def delete(request: web.Request) -> web.Response:
        chat.delete(message_of(request).id)
        return web.json_response({})

    @routes.get("/events")
    async def events(request: web.Request) -> web.Response:
        return web.json_response(await chat.after(int(request.query["after"])))

    app = web.Application()
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    web.run_app(application(Chat()), host="127.0.0.1", port=7007)
