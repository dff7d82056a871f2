"""Holds what people upload, and sends it to who has a token with the scope."""

from __future__ import annotations

import asyncio
import itertools
import mimetypes
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from tests.emulators.slack.arguments import SlackError, decoded, text
from tests.emulators.slack.payload import Payload

if TYPE_CHECKING:
    from tests.emulators.slack.app import App
    from tests.emulators.slack.message import Post
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
    is_complete: bool = True
    awaited: int = 0  # bytes
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
    token is good enough. `base` is the host's address. Bytes that an app uploads or fetches wait at
    `gate`, if there is one, before they arrive.

    An update that names files `replaces` those of the message (observed in a workspace, and not
    documented), or adds to them. That its answer `tells` of them is a guess.
    """

    def __init__(self, app: App) -> None:
        self.base = self.elsewhere = ""
        self.asks_to_log_in = False
        self.replaces = self.tells = True
        self.gate: asyncio.Event | None = None
        self.fetched: list[str] = []
        self.methods = {
            "files.completeUploadExternal": self.complete,
            "files.getUploadURLExternal": self.begin,
            "files.info": self.info,
        }
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

    def begin(self, workspace: Workspace, args: Payload) -> Payload:
        """files.getUploadURLExternal."""
        name, length = text(args, "filename"), text(args, "length")
        if not name or not length.isdigit() or int(length) == 0:
            raise SlackError("invalid_arguments")
        file = self.upload(workspace, workspace.bot_user_id, (name, b""), another=False)
        file.is_complete, file.awaited = False, int(length)
        return {"upload_url": f"{self.base}upload/v1/{file.id}", "file_id": file.id}

    def complete(self, _: Workspace, args: Payload) -> Payload:
        """files.completeUploadExternal, without a channel: the files are private."""
        named = decoded(args.get("files"), "invalid_arguments")
        files = (
            [self._files.get(str(one["id"])) for one in named] if isinstance(named, list) else []
        )
        if not files or text(args, "channel_id"):
            raise SlackError("invalid_arguments")
        found = [file for file in files if file and len(file.data) == file.awaited]
        if len(found) < len(files):
            raise SlackError("file_not_found")
        for file in found:
            file.is_complete = True
        return {"files": [file.payload() for file in found]}

    def attach(self, post: Post, args: Payload) -> None:
        """Let a message have the files that an update names (docs: chat.update, file_ids)."""
        given = text(args, "file_ids")
        if "file_ids" not in args:
            return
        ids = decoded(given, "invalid_arguments") if given.startswith("[") else given.split(",")
        files = [self._files.get(str(one)) for one in ids] if isinstance(ids, list) else []
        found = [file for file in files if file and file.is_complete]
        if len(found) < len(files):
            raise SlackError("file_not_found")
        before = [] if self.replaces else [*post.files]
        post.files = tuple({file.id: file for file in [*before, *found]}.values())

    async def receive(self, request: web.Request) -> web.Response:
        """Take the bytes of an upload; its address is the permission."""
        if self.gate:
            await self.gate.wait()
        file = self._files.get(request.match_info["file"])
        if file is None or file.is_complete or "Authorization" in request.headers:
            return web.Response(status=404)
        file.data = await request.read()
        return web.Response(text=f"OK - {len(file.data)}")

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
        if self.gate:
            await self.gate.wait()
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(file.data), _CHUNK):
            await response.write(file.data[start : start + _CHUNK])
        return response


def _is_shared(workspace: Workspace, file: File) -> bool:
    posts = (post for it in workspace.channels.values() if it.member for post in it.posts.values())
    return any(file in post.files and not post.removed for post in posts)
