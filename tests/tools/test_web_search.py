"""The web is searched with the operator's service, and what it answers stays data."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from bot.domain import Json
from bot.tools.toolset import Asked, Found, ToolFailed, ToolResult
from bot.tools.web_search import WebSearch, web_search
from tests.emulators.serving import served
from tests.support.at_work import make_turn
from tests.support.settings import settings_of

Answer = Callable[[web.Request], web.StreamResponse]


def results(*pages: Mapping[str, Json]) -> web.Response:
    """Answer as a SearXNG does."""
    return web.json_response({"query": "q", "results": list(pages), "unresponsive_engines": []})


def page(number: int, **others: Json) -> dict[str, Json]:
    return {
        "url": f"https://example.org/{number}",
        "title": f"Page {number}",
        "content": f"About {number}.",
        **others,
    }


@asynccontextmanager
async def service(answer: Answer) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Serve a search service; return its address, and the requests."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        asked.append(request)
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with served(app) as address:
        yield address, asked


async def search(
    url: str, query: str = "who won", *, provider: str = "", key: str = ""
) -> ToolResult:
    source = WebSearch(provider=provider, url=url, key=key)
    (offered,) = await source.offered(Asked(make_turn()))
    return await offered.run({"query": query}, "key")


async def test_a_searxng_is_asked_for_json_and_five_pages_are_found() -> None:
    async with service(lambda _: results(*map(page, range(9)))) as (address, asked):
        result = await search(f"{address}/searx/", "who  won\nit?")

    (request,) = asked
    assert (request.method, request.path) == ("GET", "/searx/search")
    assert dict(request.query) == {"q": "who  won it?", "format": "json"}
    assert result.foreign
    assert [one.address for one in result.found] == [f"https://example.org/{n}" for n in range(5)]
    assert result.found[0] == Found("Page 0", "https://example.org/0", "About 0.")


async def test_brave_gets_its_key_in_a_header_alone() -> None:
    answer = {"web": {"results": [{"url": "https://a.org/", "title": "A", "description": "It is"}]}}
    async with service(lambda _: web.json_response(answer)) as (address, asked):
        result = await search(address, provider="brave", key="s3cret")

    assert asked[0].path == "/res/v1/web/search"
    assert asked[0].headers["X-Subscription-Token"] == "s3cret"
    assert "s3cret" not in str(asked[0].rel_url)
    assert result.found == (Found("A", "https://a.org/", "It is"),)


async def test_tavily_gets_its_key_in_a_header_alone() -> None:
    async with service(lambda _: results(page(1))) as (address, asked):
        result = await search(address, provider="tavily", key="s3cret")
        body = await asked[0].json()

    assert (asked[0].method, asked[0].path) == ("POST", "/search")
    assert asked[0].headers["Authorization"] == "Bearer s3cret"
    assert body == {"query": "who won", "max_results": 5}
    assert [one.title for one in result.found] == ["Page 1"]


async def test_nothing_found_is_said() -> None:
    async with service(lambda _: results()) as (address, _):
        assert (await search(address)).text == "Nothing was found."


async def test_only_addresses_of_pages_are_results() -> None:
    bad: list[Json] = [
        *(
            "javascript:alert(1)",
            "ftp://a.org/",
            "/relative",
            "",
            "https://",
            "https://a b",
            None,
            7,
        ),
        *("https://google.com@evil.org/", "https://[::1", f"https://a.org/{'a' * 3000}"),
    ]
    pages = [page(n, url=url) for n, url in enumerate(bad)]

    async with service(lambda _: results(*pages, page(1), page(1))) as (address, _):
        result = await search(address)

    assert [one.address for one in result.found] == ["https://example.org/1"]


async def test_what_strangers_wrote_is_one_line_without_controls_and_has_an_end() -> None:
    evil = page(1, title="A\nB\x1b[31m\u202e" + "a" * 999, content="x\0y\n" + "b" * 9_999)

    async with service(lambda _: results(evil, page(2, title=None, content=[1]))) as (address, _):
        first, second = (await search(address)).found

    assert first.title.startswith("A B[31maaa")
    assert first.text.startswith("xy bbb")
    assert (len(first.title), len(first.text)) == (200, 1_000)
    assert second == Found("example.org", "https://example.org/2", "")


def packed() -> web.Response:
    body = gzip.compress(json.dumps({"results": [page(1)]}).encode())
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.Response(status=403, text="Forbidden"),
        lambda _: web.Response(status=429, text='{"error": "slow down"}'),
        lambda _: web.Response(text="<html>Welcome</html>", content_type="text/html"),
        lambda _: web.Response(text="[1]", content_type="application/json"),
        lambda _: web.Response(text="[" * 100_000, content_type="application/json"),
        lambda _: web.json_response({"results": [], "more": "x" * 3_000_000}),
        lambda _: web.Response(status=302, headers={"Location": "/elsewhere"}),
        lambda _: packed(),
    ],
)
async def test_a_service_that_answers_otherwise_fails_with_a_clear_sentence(answer: Answer) -> None:
    async with service(answer) as (address, asked):
        with pytest.raises(ToolFailed, match=r"search service does not answer as it should"):
            await search(address)

    assert len(asked) == 1


@pytest.mark.parametrize("body", [{}, {"results": 1}, {"results": [1, None, "a"]}, {"web": []}])
@pytest.mark.parametrize("provider", ["", "brave", "tavily"])
async def test_an_answer_of_another_shape_has_no_results(provider: str, body: Any) -> None:
    body = {"some": "thing", **body}
    async with service(lambda _: web.json_response(body)) as (address, _):
        result = await search(address, provider=provider)

    assert result.found == ()


async def test_a_service_that_is_away_fails_with_a_clear_sentence() -> None:
    async with service(lambda _: results()) as (address, _):
        pass

    with pytest.raises(ToolFailed, match="cannot be reached"):
        await search(address)


async def test_an_empty_query_is_not_sent() -> None:
    with pytest.raises(ToolFailed, match="empty"):
        await search("http://127.0.0.1:9", " \n\x00 ")


async def test_the_operator_chooses_the_service() -> None:
    assert web_search(settings_of()) is None
    assert web_search(settings_of(search_url="http://here")) is not None
    assert web_search(settings_of(search_key="k", search_provider="tavily")) is not None
