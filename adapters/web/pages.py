"""The role `web`: the page's application over the intake, and the reader of all open pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from adapters.web.api import Api
from adapters.web.assets import Assets
from adapters.web.follower import Follower
from adapters.web.people import Cookies, read_secret
from adapters.web.server import application
from adapters.web.sign_in import SignIn, SignInMethods
from adapters.web.talks import Talks
from bot.domain import Json
from bot.intake.intake import Intake
from bot.store import Store

_PROVIDER_SECONDS = 12 * 3600.0  # until the next redirect to the provider


@dataclass(frozen=True, slots=True)
class Pages:
    """Serves the page. `about` is sent to every page: the model's name and the like."""

    store: Store
    talks: Talks
    follower: Follower
    sign_in: SignIn
    assets: Assets
    about: Mapping[str, Json]

    async def listen(self) -> None:
        """Update the open pages until cancelled."""
        await self.follower.run()

    def application(
        self, intake: Intake, trust: Callable[[web.Request, str], None]
    ) -> web.Application:
        """Return the application; `trust` gets each request with its person's id."""
        api = Api(self.store, intake, self.talks, self.follower, self.about)
        app = application(api=api, assets=self.assets, sign_in=self.sign_in, trust=trust)
        app.on_shutdown.append(self._end_pages)
        return app

    async def _end_pages(self, _: web.Application) -> None:
        # Otherwise shutdown would wait for them.
        self.follower.end_pages()


async def open_pages(
    *,
    store: Store,
    access: SignInMethods,
    keep_seconds: float,
    remembers: bool = True,
    about: Mapping[str, Json],
    home: str = "",
) -> Pages:
    """Load the shared state of all processes with the role. Raises StoreUnavailable."""
    talks = Talks(store=store, keep_seconds=keep_seconds, remembers=remembers)
    # A person removed at the provider must lose access soon.
    seconds = min(keep_seconds, _PROVIDER_SECONDS) if access.way == "oidc" else keep_seconds
    cookies = Cookies(
        secret=await read_secret(store),
        way=access.cookie_key,
        keep_seconds=seconds,
        secure=home.startswith("https://"),
    )
    return Pages(
        store=store,
        talks=talks,
        follower=Follower(store=store, talks=talks),
        sign_in=SignIn(access=access, cookies=cookies, store=store, home=home),
        assets=await asyncio.to_thread(Assets),
        about={**about, "login": access.way},
    )
