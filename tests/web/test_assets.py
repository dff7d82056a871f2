"""The page's files come once, under the hash of them all, and are what others published."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from adapters.web.assets import Assets

ROOT = Path(__file__).parents[2]
PAGE = b'<script type="module" src="/static/app.js"></script>'


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    (folder / "more").mkdir(exist_ok=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "app.js").write_text('import "./more/one.js";' + " " * 1000)
    (folder / "more" / "one.js").write_text("1;")
    assets, app = Assets(folder), web.Application()
    app.router.add_get("/", assets.page)
    app.router.add_get("/static/{path:.+}", assets.static)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}", auto_decompress=False) as session:
        yield session
    await runner.cleanup()


async def test_the_page_names_its_files_by_their_hash_and_they_are_kept(tmp_path: Path) -> None:
    async with served(tmp_path) as session:
        async with session.get("/", headers={"Accept-Encoding": "identity"}) as page:
            text = await page.text()
        script = text.split('src="')[1].split('"')[0]
        async with session.get(script) as packed:
            body = gzip.decompress(await packed.read())
        async with session.get(script.replace("app.js", "more/one.js")) as module:
            assert await module.read()
        async with session.get("/static/app.js") as plain:
            tag = plain.headers["ETag"]
        async with session.get("/static/app.js", headers={"If-None-Match": tag}) as known:
            pass
        older = script.replace(script.split("/")[2], "0" * 16)
        async with session.get(older) as other:
            pass

    assert page.headers["Cache-Control"] == "no-cache"
    assert packed.headers["Cache-Control"].endswith("immutable")
    assert packed.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert body.startswith(b'import "./more/one.js";')
    assert (module.status, known.status, other.status) == (200, 304, 200)
    assert plain.headers["Cache-Control"] == other.headers["Cache-Control"] == "no-cache"


async def test_nothing_but_the_files_is_served(tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_text("secret")
    async with served(tmp_path) as session:
        found = []
        for path in ("..%2fsecret", "%2e%2e/secret", "more", "none.js", "more/../app.js"):
            async with session.get(f"/static/{path}") as answer:
                found.append((answer.status, await answer.read()))

    assert all(b"secret" not in body for _, body in found)
    assert [status for status, _ in found[:4]] == [404] * 4


@pytest.mark.parametrize("folder", ["adapters/web/static/vendor", "tests/web/vendor"])
def test_vendored_files_have_the_listed_hashes_and_a_licence(folder: str) -> None:
    files = {path.name: path for path in (ROOT / folder).iterdir()}
    listed = json.loads(files.pop("vendored.json").read_text())

    for each in listed:
        assert hashlib.sha256(files.pop(each["file"]).read_bytes()).hexdigest() == each["sha256"]
        assert files.pop(f"{Path(each['file']).stem}.LICENSE.txt").read_text()
        assert each["package"]
        assert each["version"]
    assert not files
