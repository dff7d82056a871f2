"""The files of Slack's messages: which there are, and their bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress

from adapters.slack.reading import file_name, files_in, is_deleted, own_files, string_field
from adapters.slack.workspace import Workspace
from bot.domain import FileRef
from bot.errors import MessageGone, SurfaceError, WriteRefused
from bot.files.download import download

_HOSTS = ("files.slack.com",)  # docs: File object, url_private_download
_MOST_LOOK_UPS = 20  # of files for one prompt
_UNNAMED = "file"
_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html)", re.IGNORECASE)
_NO_SCOPE = "does the app have the scope files:read?"

Message = Mapping[str, object]


def files_of(message: Message, id_: str) -> tuple[FileRef, ...]:
    """Return the files of the message `id_` that are not deleted.

    Their place is their id alone: some messages have no address, and others have an old one.
    """
    found = {string_field(one, "id"): one for one in files_in(message) if not is_deleted(one)}
    return tuple(
        FileRef(f"slack:{file}", id_, file_name(one) or _UNNAMED, _size(one), {"file": file})
        for file, one in found.items()
        if file
    )


async def with_files(workspace: Workspace, messages: Sequence[Message]) -> list[Message]:
    """Return messages with what Slack reports of files of which they have only the id.

    Those are files of other workspaces (docs: File object, "Slack Connect files"). Of many, the
    newest are looked up. What Slack does not report in time stays as it is.
    """
    known = dict[str, Message]()

    async def look_up(file: str) -> None:
        with suppress(SurfaceError):
            known[file] = await workspace.file(file, within=workspace.limits.name_timeout)

    found = (file for message in reversed(messages) for file in own_files(message))
    stubs = dict.fromkeys(string_field(one, "id") for one in found if _is_stub(one))
    await asyncio.gather(*map(look_up, [*stubs][:_MOST_LOOK_UPS]))
    return [_completed(message, known) for message in messages] if known else list(messages)


async def fetch_file(
    workspace: Workspace, file: FileRef, *, operators: str
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file from Slack's host, which gets the bot token.

    `operators` is the address of Slack's Web API if the operator has set one. Raises SurfaceError.
    """
    found = await workspace.file(str(file.place.get("file")))
    if is_deleted(found):
        raise MessageGone("the file was deleted")
    if found.get("mode") == "hidden_by_limit":
        raise WriteRefused("the file is older than the workspace's plan shows")
    if found.get("is_external") is True:
        raise WriteRefused("the file is at another service")
    address = string_field(found, "url_private_download") or string_field(found, "url_private")
    headers = {"Authorization": f"Bearer {workspace.client.token}"}
    bytes_ = download(address, hosts=_HOSTS, operators=operators, headers=headers)
    length, is_page = 0, False
    try:
        async with aclosing(bytes_) as chunks:
            async for chunk in chunks:
                is_page = is_page or (not length and _PAGE.match(chunk) is not None)
                length += len(chunk)
                yield chunk
    except WriteRefused as error:
        # Instead of a file, Slack may redirect to the workspace's page to log in.
        raise WriteRefused(f"{error}: {_NO_SCOPE}") from error
    # Or it sends that page. Guess: a canvas ("quip") comes as a page of another length.
    if is_page and length != _size(found) and found.get("mode") != "quip":
        raise WriteRefused(f"Slack has sent a page instead of the file: {_NO_SCOPE}")


def _completed(message: Message, known: Mapping[str, Message]) -> Message:
    files = [{**one, **known.get(string_field(one, "id"), {})} for one in own_files(message)]
    return {**message, "files": files} if files else message


def _is_stub(file: Message) -> bool:
    return not file_name(file) and not is_deleted(file) and string_field(file, "id") != ""


def _size(file: Message) -> int:
    size = file.get("size")
    return size if isinstance(size, int) else 0
