"""Serves the files that people attach, under signed addresses that expire."""

from __future__ import annotations

import asyncio
import mimetypes
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from tests.emulators.clock import Clock
from tests.emulators.discord.objects import Payload, snowflake
from tests.support.pictures import png

_CHUNK = 65_536  # bytes

# A file's name, or its name and its bytes.
Upload = str | tuple[str, bytes]


@dataclass(slots=True)
class Cdn:
    """Holds files; a message that is read has a new address of each (docs: CDN Data).

    `fetched` has the names of files in the order in which they were fetched. `elsewhere` is an
    address to which every file redirects, and `gate` holds files back until it is set. Pictures are
    scaled to the sides in a query. Addresses are valid for `valid_seconds`.
    """

    clock: Clock
    address: Callable[[], str]
    violations: list[str]
    fetched: list[str] = field(default_factory=list)
    elsewhere: str = ""
    gate: asyncio.Event | None = None
    valid_seconds: float = 24 * 3600  # docs: Signed Attachment CDN URLs
    _files: dict[str, bytes] = field(default_factory=dict)  # by path
    _signed: dict[str, tuple[str, float]] = field(default_factory=dict)  # paths and ends

    def upload(self, channel_id: str, upload: Upload, *, folder: str = "attachments") -> Payload:
        """Hold a file, and return its attachment without an address."""
        name, data = (upload, b"?") if isinstance(upload, str) else upload
        identity = snowflake()
        path = f"/{folder}/{channel_id}/{identity}/{name}"
        self._files[path] = data
        seen: Payload = {"id": identity, "filename": name, "size": len(data), "url": path}
        kind = mimetypes.guess_type(name)[0]
        if data.startswith(b"\x89PNG") and len(data) > 24:
            seen["width"], seen["height"] = struct.unpack_from(">II", data, 16)
        return seen | ({"content_type": kind} if kind else {})

    def read(self, attachment: Payload) -> bytes:
        """Return the bytes of an attachment."""
        return self._files[str(attachment["url"])]

    def signed(self, attachment: Payload) -> Payload:
        """Return an attachment with an address that expires."""
        path, key = str(attachment["url"]), secrets.token_hex(8)
        self._signed[key] = path, self.clock.now() + self.valid_seconds
        now = time.time()
        times = f"ex={int(now + self.valid_seconds):x}&is={int(now):x}"
        url = f"{self.address()}{quote(path)}?{times}&hm={key}"
        return attachment | {"url": url, "proxy_url": url}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send a file; nobody needs to say who they are."""
        if "Authorization" in request.headers:
            self.violations.append("a token was sent to the CDN")
        path, until = self._signed.get(request.query.get("hm", ""), ("", 0.0))
        if path != request.path or until < self.clock.now():
            return web.Response(status=404, text="This content is no longer available.")
        if self.elsewhere:
            return web.Response(status=302, headers={"Location": self.elsewhere})
        self.fetched.append(path.rpartition("/")[2])
        if self.gate:
            await self.gate.wait()
        response = web.StreamResponse()
        await response.prepare(request)
        data = self._files[path]
        if "width" in request.query:
            data = png(int(request.query["width"]), int(request.query["height"]))
        for start in range(0, len(data), _CHUNK):
            await response.write(data[start : start + _CHUNK])
        return response
