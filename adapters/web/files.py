"""Uploads to the page: a file is sent before its question, which names it."""

from __future__ import annotations

import time
from collections import Counter

from aiohttp import web

from adapters.uploads import PART, Uploads
from adapters.web.api import PERSON, SIGNED_IN, Unacceptable, answer
from adapters.web.talks import is_id, thread_of
from bot.domain import ThreadKey, Turn
from bot.intake.intake import Intake

PATH = "/api/files/"
_AT_ONCE, _OWN_AT_ONCE = 50, 4  # in the process, and of one person
_BUSY = "Too many files are on their way. Please try again in a minute."


class FileApi:
    """The handlers of uploads. Each may raise ParleyError, whose `apology` the page shows."""

    def __init__(self, intake: Intake, uploads: Uploads) -> None:
        self._intake = intake
        self._uploads = uploads
        self._arriving: Counter[str] = Counter()  # by person

    def routes(self) -> list[web.RouteDef]:
        """Return the paths and their handlers."""
        path = f"{PATH}{{file}}"
        return [web.put(path, self._save), web.delete(path, self._drop)]

    async def _save(self, request: web.Request) -> web.Response:
        """Store a body; the same id again replaces it. Whoever may not ask sends in vain."""
        name, person = _name(request), request[PERSON]
        if request.content_length is None:
            raise Unacceptable(411, "A file needs its length.")
        turn = Turn(str(name), thread_of(person, ""), person, "", {}, time.time(), asker=SIGNED_IN)
        await self._intake.check_room(turn)
        if self._arriving.total() >= _AT_ONCE or self._arriving[person.id] >= _OWN_AT_ONCE:
            raise Unacceptable(503, _BUSY)
        self._arriving[person.id] += 1
        try:
            parts = request.content.iter_chunked(PART)
            await self._uploads.save(name, parts, size=request.content_length)
        finally:
            self._arriving -= Counter([person.id])  # without people who have none
        return answer({}, status=201)

    async def _drop(self, request: web.Request) -> web.Response:
        await self._uploads.drop(_name(request))
        return answer({})


def _name(request: web.Request) -> ThreadKey:
    if not is_id(request.match_info["file"]):
        raise Unacceptable(404, "There is no such file.")
    return thread_of(request[PERSON], request.match_info["file"])
