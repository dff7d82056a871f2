"""The web page, as a process sees it."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from adapters.web.settings import WebSettings, findings
from bot.errors import CannotStart
from bot.platform_spec import Connected, PlatformSpec, Process
from config.variables import IdForm

log = logging.getLogger(__name__)


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.live import LivePlatform
    from adapters.web.server import open_pages
    from adapters.web.talks import Talks

    settings, own = process.settings, WebSettings.of(process.settings)
    platform = LivePlatform(
        "web",
        store=process.store,
        announces=True,
        remembers=settings.remembers,
        shows_thoughts=True,
    )
    talks = Talks(
        store=process.store,
        keep_seconds=settings.keep_seconds,
        remembers=settings.remembers,
        wants_titles=own.titles,
    )
    untitled = talks if own.titles else None
    if "web" not in process.roles:
        yield Connected(platform, untitled=untitled)
        return
    app, follower = await open_pages(process, talks)
    async with AsyncExitStack() as stack:
        try:
            serving = process.serve_pages(app, host=own.host, port=own.port)
            found = await stack.enter_async_context(serving)
        except OSError as error:
            where = f"WEB_PORT={own.port} on WEB_HOST={own.host}"
            if process.need_all:
                raise CannotStart(f"{where} cannot be used: {error}") from error
            log.warning("The web page is not served: %s cannot be used: %s", where, error)
            process.notices.append(
                f"There is no page for your browser: port {own.port} is taken."
                " Set WEB_PORT to another number, or to 0 for any."
            )
            yield Connected(platform, follower.run, untitled=untitled)
        else:
            log.info("The page is at %s", found)
            process.notices.append(f"The same in your browser: {found}")
            yield Connected(platform, follower.run, lambda: 0.0, untitled=untitled)


PLATFORM = PlatformSpec(
    title="The web page",
    where="a web page",
    settings=WebSettings,
    connect=_connect,
    ids={"person": IdForm("[0-9a-f]{32}", "")},
    ids_help="those of the page have 32",
    # Of threads, of turns, and of the lists of conversations and of links.
    own_names=(
        *(":web::{id}:", ":web:{id}:"),
        *(":web:talks:{id}:", ":web:titles:{id}:", ":web:places:{id}:", ":web:shares:{id}:"),
    ),
    # Some of a restored store's links may have been revoked since.
    sessions=("shared:*",),
    local=True,
    credential="WEB_PASSWORD",
    # The page is for the person at the terminal, not for a script behind a pipe.
    served_alone=lambda: sys.stdin.isatty(),
    findings=findings,
)
