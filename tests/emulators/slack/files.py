"""Holds what people upload, and sends it to who has a token with the scope."""

from __future__ import annotations

import itertools
import mimetypes
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from tests.emulators.slack.arguments import SlackError, text
from tests.emulators.slack.payload import Payload

if TYPE_CHECKING:
    from tests.emulators.slack.app import App
    from tests.emulators.slack.workspace import Workspace

_CHUNK = 65_536  # bytes
_LOGIN = "<!DOCTYPE html><html><head><title>Sign in to Parley | Slack</title></head></html>"

# A file's name, or its name and its bytes.
Upload = str | tuple[str, bytes]


@dataclass(slots=True)
class File:
    """A file; messages have only the id of one of `another` workspace.

    `fields` are what Slack reports beside what is usual, or instead of it. `folder` is its address.
    """

    id: str
    user: str
    name: str
    data: bytes
    folder: str
    another: bool
    deleted: bool = False
    fields: Payload = field(default_factory=dict)

    def payload(self) -> Payload:
        """Return the file object (docs: File object)."""
        kind, path = mimetypes.guess_type(self.name)[0], quote(self.name)
        return {
            "id": self.id,
            "created": 0,
            "timestamp": 0,
            "name": self.name,
            "title": self.name,
            "mimetype": kind or "application/octet-stream",
            "filetype": PurePath(self.name).suffix.removeprefix(".") or "binary",
            "user": self.user,
            "size": len(self.data),
            "mode": "hosted",
            "is_external": False,
            "url_private": f"{self.folder}/{path}",
            "url_private_download": f"{self.folder}/download/{path}",
            **self.fields,
        }

    def in_message(self) -> Payload:
        """Return what a message has of it (docs: File object, "Slack Connect files")."""
        if self.deleted:
            return {"id": self.id, "mode": "tombstone"}
        if not self.another:
            return self.payload()
        whose: Payload = {"id": self.id, "created": 0, "timestamp": 0, "user": self.user}
        return {**whose, "file_access": "check_file_info"}


class Files:
    """Slack's host of files; `fetched` has the names of what it has sent, in that order.

    `elsewhere` is an address to which each download redirects. With `asks_to_log_in`, nobody's
    token is good enough. `base` is the host's address.
    """

    def __init__(self, app: App) -> None:
        self.base = self.elsewhere = ""
        self.asks_to_log_in = False
        self.fetched: list[str] = []
        self.methods = {"files.info": self.info}
        self._app = app
        self._files: dict[str, File] = {}
        self._serial = itertools.count(1)

    def upload(self, workspace: Workspace, user_id: str, upload: Upload, *, another: bool) -> File:
        """Hold a file of a person."""
        name, data = (upload, b"?") if isinstance(upload, str) else upload
        identity = f"F0FILE{next(self._serial):04d}"
        folder = f"{self.base}files-pri/{workspace.team_id}-{identity}"
        self._files[identity] = file = File(identity, user_id, name, data, folder, another)
        return file

    def info(self, workspace: Workspace, args: Payload) -> Payload:
        """files.info, of files that are shared where the bot is."""
        file = self._files.get(text(args, "file"))
        if file is None or not _is_shared(workspace, file):
            raise SlackError("file_not_found")
        if file.deleted:
            raise SlackError("file_deleted")
        metadata = {"next_cursor": ""}
        return {"file": file.payload(), "comments": [], "response_metadata": metadata}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send a file (docs: File object, "Authentication").

        Without a token that may read it, send the page to log in, with a status of 200
        (slackapi/bolt-js issue 2585).
        """
        team, _, identity = request.match_info["file"].partition("-")
        file = self._files.get(identity)
        if file is None or file.deleted:
            return web.Response(status=404)
        sent = request.headers.get("Authorization", "")
        is_ours = sent == f"Bearer {self._app.workspace(team).home.bot_token}"
        if self.asks_to_log_in or not is_ours or "files:read" not in self._app.scopes:
            return web.Response(text=_LOGIN, content_type="text/html")
        if self.elsewhere and "/download/" in request.path:
            return web.Response(status=302, headers={"Location": self.elsewhere})
        self.fetched.append(file.name)
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(file.data), _CHUNK):
            await response.write(file.data[start : start + _CHUNK])
        return response


def _is_shared(workspace: Workspace, file: File) -> bool:
    posts = (post for it in workspace.channels.values() if it.member for post in it.posts.values())
    return any(file in post.files and not post.removed for post in posts)
