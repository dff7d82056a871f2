"""A tool that searches the web, with the operator's SearXNG or an account at a search service."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from yarl import URL

from bot.domain import Finding, Json, Tool
from bot.languages import later
from bot.model.server import parsed_object
from bot.model.transport import read_body
from bot.proxy import proxy_for
from bot.text.sanitize import one_line, whole_characters
from bot.tools.toolset import Asked, Found, Offered, ToolFailed, ToolResult
from config.settings import Settings

log = logging.getLogger(__name__)

_MOST = 5  # results
_MOST_BYTES = 1_000_000  # of what a service answers
_SECONDS = 10.0
# Characters. Brave refuses longer queries (its reference of the web search, parameter `q`).
_QUERY, _TITLE, _ADDRESS, _TEXT = 400, 200, 2_000, 1_000
_SCHEMA: Mapping[str, Json] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to search for, in a few words"}
    },
    "required": ["query"],
}
_TOOL = Tool(
    "search_web",
    "Search the web for what is new or what you do not know. Returns the titles, addresses and "
    "beginnings of up to five pages, with numbers: name them like [1] in your answer.",
    _SCHEMA,
)
_SERVICES = {"brave": "https://api.search.brave.com", "tavily": "https://api.tavily.com"}
_PLACES = {"brave": "web/results"}  # of the results in an answer, elsewhere "results"
_NO_JSON = " (a SearXNG answers in JSON if its `search.formats` have `json`)"


class WebSearch:
    """Offers `search_web`.

    `provider` is "brave" or "tavily" with a `key`, or empty for a SearXNG. `url` is the address of
    the service.
    """

    def __init__(self, *, provider: str, url: str, key: str) -> None:
        self._provider = provider
        self._url = URL(url)
        self._key = key

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return the one tool."""
        return (Offered(_TOOL, "reads", self._search, sign=later("Searching the web")),)

    async def examine(self) -> Finding:
        """Return whether the service answers a query."""
        try:
            await self._search({"query": "weather"}, "")
        except ToolFailed as error:
            hint = _NO_JSON if not self._provider else ""
            cure = f"correct {'SEARCH_KEY' if self._provider else 'SEARCH_URL'}{hint}"
            return Finding("Tools", str(error), cure, wrong=True)
        return Finding("Tools", "The search service answers")

    async def _search(self, arguments: Mapping[str, Json], key: str) -> ToolResult:
        query = one_line(whole_characters(str(arguments.get("query", ""))))[:_QUERY]
        if not query:
            raise ToolFailed("The query is empty.")
        found = dict[str, Found]()
        for one in _results(await self._answer(query), self._provider):
            if isinstance(one, dict) and (page := _page(one)):
                found.setdefault(page.address, page)
        if not found:
            return ToolResult("Nothing was found.")
        return ToolResult("", tuple(found.values())[:_MOST])

    async def _answer(self, query: str) -> Mapping[str, Json]:
        """Return what the service answers. Raises ToolFailed."""
        method, url, options = self._request(query)
        try:
            async with (
                aiohttp.ClientSession(
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=_SECONDS),
                    # A small answer could become a large one.
                    auto_decompress=False,
                    proxy=proxy_for(str(url)),
                ) as session,
                # The key must not go elsewhere.
                session.request(method, url, allow_redirects=False, **options) as response,
            ):
                status = response.status
                body = await read_body(response, max_bytes=_MOST_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("The search service cannot be reached: %s", type(error).__name__)
            raise ToolFailed("The search service cannot be reached.") from error
        answer = parsed_object(body)
        if status == 200 and answer:
            return answer
        hint = "" if self._provider else _NO_JSON
        log.warning("The search service answers with HTTP %s, or not in JSON%s", status, hint)
        raise ToolFailed(f"The search service does not answer as it should (HTTP {status}).")

    def _request(self, query: str) -> tuple[str, URL, dict[str, Any]]:
        plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
        match self._provider:
            case "brave":
                url = self._url / "res/v1/web/search"
                params = {"q": query, "count": str(_MOST), "text_decorations": "false"}
                headers = {**plain, "X-Subscription-Token": self._key}
                return "GET", url, {"params": params, "headers": headers}
            case "tavily":
                headers = {**plain, "Authorization": f"Bearer {self._key}"}
                body = {"query": query, "max_results": _MOST}
                return "POST", self._url / "search", {"json": body, "headers": headers}
            case _:
                # https://docs.searxng.org/dev/search_api: a format that is not set gets a 403.
                url = self._url if self._url.name == "search" else self._url / "search"
                return "GET", url, {"params": {"q": query, "format": "json"}, "headers": plain}


def web_search(settings: Settings) -> WebSearch | None:
    """Return the search that the operator has set up."""
    if settings.search_key:
        url = _SERVICES[settings.search_provider]
        return WebSearch(provider=settings.search_provider, url=url, key=settings.search_key)
    return WebSearch(provider="", url=settings.search_url, key="") if settings.search_url else None


def _results(answer: Json | Mapping[str, Json], provider: str) -> list[Json]:
    for name in _PLACES.get(provider, "results").split("/"):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer if isinstance(answer, list) else []


def _page(one: Mapping[str, Json]) -> Found | None:
    """Return a result; None if it has no address of a page."""
    title, address, text = (_words(one.get(name)) for name in ("title", "url", "content"))
    try:
        url = URL(address)
    except ValueError:
        return None
    is_page = (
        not re.search(r"\s", address)
        and url.scheme in ("http", "https")
        and url.host
        and url.raw_user is None
    )
    if not is_page or len(str(url)) > _ADDRESS:
        return None
    text = text or _words(one.get("description"))
    return Found(title[:_TITLE] or str(url.host), str(url), text[:_TEXT])


def _words(value: Json) -> str:
    return one_line(whole_characters(value)) if isinstance(value, str) else ""
