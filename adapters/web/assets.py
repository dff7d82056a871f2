"""The page's own files, read once and served under their hash."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    packed: bytes
    headers: Mapping[str, str]


class Assets:
    """All files of a folder, in memory, below the address of this version.

    That address replaces `/static/` in the page. It has the hash of all files, so that relative
    names in modules work.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _TYPES)
        bodies = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self._version = hashlib.sha256(repr(bodies).encode()).hexdigest()[:16]
        own = f"/static/{self._version}/".encode()
        self._files = {
            name: _file(name, body.replace(b"/static/", own) if name.endswith(".html") else body)
            for name, body in bodies.items()
        }

    async def page(self, request: web.Request) -> web.Response:
        """Serve the page, which is the same for all people."""
        return self._serve(request, "index.html", "no-cache")

    async def login(self, request: web.Request) -> web.Response:
        """Serve the page with the password form."""
        return self._serve(request, "login.html", "no-cache")

    async def static(self, request: web.Request) -> web.Response:
        """Serve a file: cached for ever under this version's path, otherwise revalidated."""
        path = request.match_info["path"]
        version, _, name = path.partition("/")
        if version == self._version:
            return self._serve(request, name, _FOREVER)
        # A page of another version, in a deploy, asks for files under its own hash.
        is_other = len(version) == len(self._version) and name in self._files
        return self._serve(request, name if is_other else path, "no-cache")

    def _serve(self, request: web.Request, name: str, caching: str) -> web.Response:
        file = self._files.get(name)
        if file is None:
            return web.Response(status=404, text="There is no such file.\n")
        headers = {**file.headers, "Cache-Control": caching}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=file.packed, headers=headers | {"Content-Encoding": "gzip"})
        return web.Response(body=file.body, headers=headers)


def _file(name: str, body: bytes) -> _File:
    headers = {
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:20]}"',
        "Content-Type": f"{_TYPES[Path(name).suffix]}; charset=utf-8",
        "Vary": "Accept-Encoding",
    }
    return _File(body, gzip.compress(body, mtime=0), headers)
