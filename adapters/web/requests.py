"""What the handlers read of a request, and how they answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

from aiohttp import web

from adapters.uploads import file_ref
from adapters.web.talks import PLATFORM, is_id, thread_of, turn_id_of
from bot.commands.handlers import Call
from bot.domain import Asker, FileRef, Json, Person, ThreadKey
from bot.errors import NotRemembered
from bot.languages import say

PERSON = web.RequestKey("person", Person)  # the authenticated person
# Whether the person is still signed in.
MAY_STAY = web.RequestKey[Callable[[], Awaitable[bool]]]("may_stay")
# Access to the page was checked at sign-in.
SIGNED_IN = Asker(signed_in=True)


def call_of(request: web.Request) -> Call:
    """Return a command that is for all conversations of the person."""
    return Call(
        id=f"{PLATFORM}:{uuid4()}",
        thread=thread_of(request[PERSON], ""),
        person=request[PERSON],
        scopes={"channel": say("all your conversations")},
        asker=SIGNED_IN,
    )


def answer(value: Json, *, status: int = 200) -> web.Response:
    """Return a JSON response that must not be cached."""
    return web.json_response(value, status=status, headers={"Cache-Control": "no-store"})


class Unacceptable(Exception):
    """A rejected request, with a reason that the page may show."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in a body; an empty body counts as an empty object."""
    try:
        # Always as UTF-8: decoding half a megabyte of "punycode" takes 10 s.
        value = json.loads((await request.read()).decode()) if request.can_read_body else {}
    except (ValueError, RecursionError) as error:
        raise Unacceptable(400, "The request is not JSON.") from error
    if not isinstance(value, dict):
        raise Unacceptable(400, "The request is not a JSON object.")
    return value


def press_in(sent: Mapping[str, Any]) -> str:
    """Return the id of a press; without one, each request is a new press."""
    press = sent.get("id", str(uuid4()))
    if not is_id(press):
        raise Unacceptable(400, "A press needs an id.")
    return str(press)


def files_in(
    sent: Mapping[str, object], asker: Person, turn_id: str, *, most: int
) -> tuple[FileRef, ...]:
    """Return the files of a question, by the ids that its person chose for the uploads."""
    files = sent.get("files") or []
    if isinstance(files, list) and len(files) > most:
        raise Unacceptable(400, say("A question has at most {most} files.", most=most))
    found = []
    for one in files if isinstance(files, list) else [files]:
        match one:
            case {"id": str(upload), "name": str(name)} if is_id(upload):
                found.append(file_ref(thread_of(asker, upload), turn_id=turn_id, name=name))
            case _:
                raise Unacceptable(400, "A file needs an id and a name.")
    return tuple(found)


def thread_in(request: web.Request) -> ThreadKey:
    """Return the conversation in the address."""
    talk = request.match_info["talk"]
    if not is_id(talk):
        raise Unacceptable(404, say("There is no such conversation."))
    return thread_of(request[PERSON], talk)


def upload_in(request: web.Request) -> ThreadKey:
    """Return the name under which the file in the address is stored."""
    name = request.match_info["file"]
    if not is_id(name):
        raise Unacceptable(404, say("There is no such file."))
    return thread_of(request[PERSON], name)


def turn_id_in(request: web.Request) -> str:
    """Return the id of the turn in the address. Raises NotRemembered."""
    turn = request.match_info["turn"]
    if not is_id(turn):
        raise NotRemembered
    return turn_id_of(request[PERSON], turn)
