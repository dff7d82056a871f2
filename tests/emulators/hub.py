"""Hugging Face's Hub on loopback, as far as one file is downloaded from it.

Source: huggingface_hub 2.4, file_download.py: a HEAD tells commit, ETag and size, a GET has the
bytes; what is refused carries X-Error-Code (errors.py and utils/_http.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.emulators.serving import served


@dataclass(eq=False)
class HubEmulator:
    """Has `files` by "owner/name/file"; those of `gated` repositories are for `token` alone.

    `asked` are the calls that came in, with the token of each. While `hangs`, no call is answered,
    and while it `stalls`, a file stops in its middle.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_accepted"
    size: int | None = None  # that a HEAD tells, where it is not the file's
    hangs: bool = False
    stalls: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    async def list_files(self, request: web.Request) -> web.Response:
        """Tell of a repository, as far as hf_api.py's `model_info` is asked for its files."""
        repo = request.match_info["repo"]
        names = [name for name in self.files if name.startswith(f"{repo}/")]
        self.asked.append(("GET model", request.headers.get("Authorization", "")))
        if not names:
            return web.json_response({}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        siblings = [{"rfilename": name.removeprefix(f"{repo}/")} for name in names]
        return web.json_response({"id": repo, "siblings": siblings})

    async def list_agents(self, _: web.Request) -> web.Response:
        """Answer what a request's User-Agent is completed by (utils/_detect_agent.py)."""
        self.asked.append(("GET agents", ""))
        return web.json_response({"standardEnvVars": [], "harnesses": {}})

    async def serve(self, request: web.Request) -> web.StreamResponse:
        repo, file = request.match_info["repo"], request.match_info["file"]
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append((f"{request.method} {file}", given))
        while self.hangs:
            await asyncio.sleep(0.05)
        if repo in self.gated and given != self.token:
            refusal = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"{repo} is gated"}
            return web.Response(status=403 if given else 401, headers=refusal)
        content = self.files.get(f"{repo}/{file}")
        if content is None:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": "0" * 40,
            "Accept-Ranges": "bytes",
        }
        if request.method == "HEAD":
            headers["Content-Length"] = str(len(content) if self.size is None else self.size)
            return web.Response(headers=headers)
        if not self.stalls:
            return web.Response(body=content, headers=headers)
        half = len(content) // 2
        response = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:half])
        while self.stalls:
            await asyncio.sleep(0.05)
        await response.write(content[half:])
        return response


@asynccontextmanager
async def hub() -> AsyncIterator[HubEmulator]:
    """Serve on 127.0.0.1 while this lasts."""
    emulator = HubEmulator()
    app = web.Application()
    app.router.add_route("*", r"/{repo:[^/]+/[^/]+}/resolve/main/{file:.+}", emulator.serve)
    app.router.add_get(r"/api/models/{repo:[^/]+/[^/]+}", emulator.list_files)
    app.router.add_get("/api/agent-harnesses", emulator.list_agents)
    async with served(app) as emulator.url:
        try:
            yield emulator
        finally:
            emulator.hangs = emulator.stalls = False
