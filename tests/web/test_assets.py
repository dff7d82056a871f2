"""The page's files come once, and are what others published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yarl

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.web_page import page_of

ROOT = Path(__file__).parents[2]


async def test_a_browser_keeps_the_pages_files_and_asks_whether_they_have_changed(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        script = f"{ann.address}/static/app.js"
        async with ann.session.get(script) as first:
            body = await first.read()
        tag = {"If-None-Match": first.headers["ETag"]}
        async with ann.session.get(script, headers=tag) as known:
            pass
        async with ann.session.head(script) as head:
            pass
        # What followed one of these would be taken for the next response of the connection.
        async with ann.session.get(script) as again:
            assert await again.read() == body

    assert "javascript" in first.headers["Content-Type"]
    assert first.headers["Cache-Control"] == known.headers["Cache-Control"] == "no-cache"
    assert body == (ROOT / "adapters/web/static/app.js").read_bytes()
    assert (known.status, head.status) == (304, 200)


async def test_texts_travel_compressed_to_who_can_read_that(
    own_store: Store, model: ModelEmulator
) -> None:
    found = {}
    async with page_of(own_store, model) as (ann, _):
        for coding in ("gzip", "identity"):
            for path, name in (
                ("/static/app.js", "app.js"),
                ("/static/style.css", "style.css"),
                ("/", "index.html"),
            ):
                ask = {"Accept-Encoding": coding}
                async with ann.session.get(f"{ann.address}{path}", headers=ask) as answer:
                    assert "Accept-Encoding" in answer.headers["Vary"]
                    assert await answer.read() == (ROOT / "adapters/web/static" / name).read_bytes()
                    found[coding, path] = answer.headers.get("Content-Encoding")
        async with ann.session.get(f"{ann.address}/static/icon-192.png") as picture:
            assert "Content-Encoding" not in picture.headers

    assert {found["gzip", path] for path in ("/", "/static/app.js", "/static/style.css")} == {
        "gzip"
    }
    assert {found["identity", path] for _, path in found} == {None}


async def test_nothing_but_the_files_is_served(own_store: Store, model: ModelEmulator) -> None:
    async with page_of(own_store, model) as (ann, _):
        found = []
        for path in ("..%2fserver.py", "%2e%2e/server.py", "vendor", "none.js"):
            address = yarl.URL(f"{ann.address}/static/{path}", encoded=True)
            async with ann.session.get(address) as answer:
                found.append((answer.status, await answer.read()))

    assert all(status in (403, 404) and b"import" not in body for status, body in found)


@pytest.mark.parametrize("folder", ["adapters/web/static/vendor", "tests/web/vendor"])
def test_vendored_files_have_the_listed_hashes_and_a_licence(folder: str) -> None:
    files = {path.name: path for path in (ROOT / folder).iterdir()}
    listed = json.loads(files.pop("vendored.json").read_text())
    licences = {Path(each["file"]).stem.lower() for each in listed}

    assert all(files.pop(f"{name}.LICENSE.txt").read_text() for name in licences)
    for each in listed:
        assert hashlib.sha256(files.pop(each["file"]).read_bytes()).hexdigest() == each["sha256"]
        assert each["package"]
        assert each["version"]
    assert not files
