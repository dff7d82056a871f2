"""The files of Slack's messages: which there are, and their bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from adapters.slack.reading import file_name, files_in, is_deleted, own_files, string_field
from adapters.slack.workspace import Workspace
from bot.domain import FileRef
from bot.errors import SurfaceError, WriteRefused
from bot.files.download import download
from bot.files.pictures import is_too_large

_HOSTS = ("files.slack.com",)  # docs: File object, url_private_download
_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html)", re.IGNORECASE)

Message = Mapping[str, object]


def files_of(message: Message, id_: str) -> tuple[FileRef, ...]:
    """Return the files of the message `id_` that are not deleted.

    Their ids alone lead to them: some messages have no address, and others have an old one.
    """
    return tuple(
        FileRef(f"slack:{file['id']}", id_, file_name(file) or "file", _size(file), {})
        for file in files_in(message)
        if string_field(file, "id") and not is_deleted(file)
    )


async def with_known_files(workspace: Workspace, message: Message) -> Message:
    """Return a message with what Slack reports of files of which it has only the id.

    Those are files of other workspaces (docs: File object, "Slack Connect files"). What Slack does
    not report in time stays as it is.
    """

    async def known(file: Message) -> Message:
        if file_name(file) or is_deleted(file):
            return file
        with suppress(SurfaceError):
            id_, seconds = string_field(file, "id"), workspace.limits.name_timeout
            return {**file, **await workspace.file(id_, within=seconds)}
        return file

    files = await asyncio.gather(*map(known, own_files(message)))
    return {**message, "files": files} if files else message


async def fetch_file(workspace: Workspace, file: FileRef, *, api_url: str) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file from Slack's host, which gets the bot token.

    `api_url` is the address of the Web API if the operator has set one. Raises SurfaceError.
    """
    found = await workspace.file(file.id.removeprefix("slack:"))
    size, width, height = (_number(found, it) for it in ("size", "original_w", "original_h"))
    is_large = is_too_large(size, width, height)
    # The first is the smaller copy of a picture (docs: File object).
    names = ("thumb_1024" if is_large else "", "url_private_download", "url_private")
    address = next(filter(None, (string_field(found, name) for name in names)), "")
    headers = {"Authorization": f"Bearer {workspace.client.token}"}
    bytes_ = download(address, hosts=_HOSTS, api_url=api_url, headers=headers)
    start, length = b"", 0
    async with aclosing(bytes_) as chunks:
        async for chunk in chunks:
            start, length = start or chunk, length + len(chunk)
            yield chunk
    # Guess: a canvas ("quip") comes as a page of another length.
    if _PAGE.match(start) and length != size and found.get("mode") != "quip":
        raise WriteRefused("Slack has sent a page to log in: does the app have files:read?")


def _size(file: Message) -> int:
    """Return the bytes of a file; 0 for a picture, of which the smaller copy may be fetched."""
    return 0 if string_field(file, "thumb_1024") else _number(file, "size")


def _number(file: Message, name: str) -> int:
    value = file.get(name)
    return value if isinstance(value, int) else 0
