"""The page's own files, read once and served under their hash."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"
PAGE, LOGIN = "index.html", "login.html"
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".woff2": "font/woff2"}
_TEXTS = ("text/", "image/svg", "application/json", "application/manifest")


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    packed: bytes | None
    media_type: str
    tag: str


class Assets:
    """All files of a folder, in memory; `/static/` in the page becomes the address of this version.

    The hash in that address is of all files, so that modules find each other by relative names.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        bodies = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        everything = hashlib.sha256()
        for name, body in bodies.items():
            everything.update(f"{name}\0{len(body)}\0".encode() + body)
        self._version = everything.hexdigest()[:16]
        own = f"/static/{self._version}/".encode()
        for name in bodies.keys() & {PAGE, LOGIN}:
            bodies[name] = bodies[name].replace(b"/static/", own)
        self._files = {name: _file(name, body) for name, body in bodies.items()}

    async def page(self, request: web.Request) -> web.Response:
        """Return the page, which is the same for everybody."""
        return self._serve(request, PAGE, "no-cache")

    async def login(self, request: web.Request) -> web.Response:
        """Return the page that asks for the password."""
        return self._serve(request, LOGIN, "no-cache")

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
        headers = {"ETag": file.tag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
        headers["Content-Type"] = file.media_type
        if request.headers.get("If-None-Match") == file.tag:
            return web.Response(status=304, headers=headers)
        if file.packed and "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=file.packed, headers=headers | {"Content-Encoding": "gzip"})
        return web.Response(body=file.body, headers=headers)


def _file(name: str, body: bytes) -> _File:
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    media_type = _TYPES.get(Path(name).suffix, guessed)
    is_text = media_type.startswith(_TEXTS)
    packed = gzip.compress(body, mtime=0) if is_text else None
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return _File(body, packed, f"{media_type}; charset=utf-8" if is_text else media_type, tag)
