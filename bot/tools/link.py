"""A tool that opens a link which a person has written in this conversation."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from itertools import islice

import aiohttp
from yarl import URL

from bot.domain import ContextMessage, FileText, Json, Tool
from bot.files.download import public_socket
from bot.files.problem import Problem
from bot.files.reading import MB, read_file
from bot.languages import later
from bot.proxy import proxy_for
from bot.text.sanitize import one_line
from bot.tools.toolset import Asked, Found, Offered, ToolFailed, ToolResult

_MOST_MB = 1  # after decompression
_MOST_CHARACTERS = 50_000  # of a page's text
_REDIRECTS = 5
_AT_ONCE = 4  # in the process; a child process reads each page
_CHUNK = 65_536  # bytes
_TITLE = 200  # characters
_HEADERS = {
    "User-Agent": "Parley (chat bot; opens a link because a person has sent it)",
    "Accept": "text/html, application/xhtml+xml, application/pdf;q=0.9, */*;q=0.5",
    # Of these alone, the size can be bounded while they are unpacked.
    "Accept-Encoding": "gzip, identity",
}
_HTML = ("text/html", "application/xhtml+xml")
_TOOL = Tool(
    "open_link",
    "Open a link that a person has written in this conversation, and read the text of its page or "
    "document. Other addresses are refused.",
    {
        "type": "object",
        "properties": {"address": {"type": "string", "description": "The link as it was written"}},
        "required": ["address"],
    },
)
_LINK = re.compile(r"https?://[^\s<>\"`|\\^{}]{1,2000}", re.IGNORECASE)
_MOST_LINKS = 100  # of a conversation
# At the end of a link, most likely of the sentence around it.
_TRAILING, _MOST_TRAILING = ".,;:!?'*_~)]\u2026", 5


def public_connector() -> aiohttp.BaseConnector:
    """Return a connector that connects to no private address, whatever a name leads to."""
    return aiohttp.TCPConnector(socket_factory=public_socket)


class LinkOpener:
    """Offers `open_link` for questions in whose conversation a person has written a link.

    A page may take so many `seconds`, and as many to be read.
    """

    def __init__(
        self,
        connector: Callable[[], aiohttp.BaseConnector] = public_connector,
        *,
        seconds: float = 10.0,
    ) -> None:
        self._connector = connector
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return the tool, if there is a link that can be opened."""
        # A proxy looks names up by itself, so nobody could check where they lead.
        links = {link for link in links_of(asked) if not proxy_for(str(link))}
        if not links:
            return ()

        async def run(arguments: Mapping[str, Json], key: str) -> ToolResult:
            link = _checked(str(arguments.get("address", "")))
            if link not in links:
                raise ToolFailed("No person has written this link here, so it is not opened.")
            async with self._slots:
                return await self._opened(link)

        return (Offered(_TOOL, "reads", run, sign=later("Opening a link")),)

    async def _opened(self, link: URL) -> ToolResult:
        try:
            async with asyncio.timeout(self._seconds):
                link, kind, charset, data = await self._fetched(link)
        except TimeoutError as error:
            raise ToolFailed("The page takes too long.") from error
        except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
            raise ToolFailed("The page cannot be reached.") from error
        is_cut = len(data) > _MOST_MB * MB
        del data[_MOST_MB * MB :]
        page = await read_file(
            "",
            data,
            most_mb=_MOST_MB,
            seconds=self._seconds,
            html=charset if kind in _HTML else None,
        )
        return ToolResult("", (_found(page, link, is_cut=is_cut),))

    async def _fetched(self, link: URL) -> tuple[URL, str, str, bytearray]:
        """Return where a link leads to, and its type, its charset and a little too much of it.

        Raises ToolFailed, OSError, ValueError, aiohttp.ClientError and zlib.error.
        """
        async with aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
        ) as session:
            for _ in range(_REDIRECTS + 1):
                async with session.get(link, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        link = _checked(str(link.join(URL(response.headers.get("Location", "")))))
                        continue
                    if response.status != 200:
                        raise ToolFailed(f"The page answers with HTTP {response.status}.")
                    body = await _body(response)
                    return link, response.content_type, response.charset or "", body
        raise ToolFailed("The link leads from page to page, without an end.")


async def _body(response: aiohttp.ClientResponse) -> bytearray:
    """Return what a response has, unpacked, or one byte more than is allowed."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise ToolFailed("The page is packed in a way that is not read.")
    unpacking = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        room = _MOST_MB * MB + 1 - len(data)
        data += unpacking.decompress(chunk, room) if unpacking else chunk[:room]
        if len(data) > _MOST_MB * MB:
            break
    return data


def links_of(asked: Asked) -> Set[URL]:
    """Return the links that people have written: in the question, and what its prompt shows.

    These are the newest ones; nobody can make the bot read thousands.
    """
    turn = asked.turn
    texts = [turn.text, *_texts(turn.quote, *(turn.context or ()))]
    for one in reversed(asked.remembered):
        texts += [one.question, *_texts(one.quote, *one.context)]
    written = (found for text in texts for found in _LINK.finditer(text))
    return {link for found in islice(written, _MOST_LINKS) for link in _links_in(found[0])}


def _texts(*messages: ContextMessage | None) -> Iterator[str]:
    return (one.text for one in messages if one and one.person)


def _links_in(found: str) -> Iterator[URL]:
    least = found.rstrip(_TRAILING)
    for end in range(len(least), min(len(found), len(least) + _MOST_TRAILING) + 1):
        with suppress(ToolFailed):
            yield _checked(found[:end])


def _checked(address: str) -> URL:
    """Return a link, by HTTPS. Raises ToolFailed if it is not opened, wherever it leads."""
    try:
        url = URL(address.strip())
        if url.scheme == "http" and url.explicit_port is None:
            url = url.with_scheme("https")
    except ValueError:
        raise ToolFailed("This is no link.") from None
    if url.scheme != "https" or url.port != 443 or not url.host:
        raise ToolFailed("Only links with https:// and without a port are opened.")
    if url.raw_user is not None or url.raw_password is not None:
        raise ToolFailed("A link with a login is not opened.")
    return url.with_fragment(None)


def _found(page: FileText, link: URL, *, is_cut: bool) -> Found:
    """Return what the model reads of a page. Raises ToolFailed if that is nothing."""
    if page.picture:
        raise ToolFailed("The link leads to a picture, which this tool cannot show.")
    if not page.text:
        raise ToolFailed(page.problem.replace("{names}", "the page"))
    title, _, text = page.text.partition("\f") if page.unit == "html" else ("", "", page.text)
    if not text:
        raise ToolFailed(Problem.EMPTY.replace("{names}", "the page"))
    if is_cut or page.is_cut or len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}\n(The rest of this page was left out.)"
    return Found(" ".join(one_line(title).split())[:_TITLE] or str(link.host), str(link), text)
