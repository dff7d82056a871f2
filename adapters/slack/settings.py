"""The settings of Slack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from config.settings import PlatformSettings, Settings, two_ways
from config.variables import like, setting, url, within, word, words

INSTALL_PATH, REDIRECT_PATH = "/slack/install", "/slack/oauth_redirect"
KEY_MAKER = (
    'python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
)


def _token(wrong_prefix: str, problem: str) -> Callable[[str], str]:
    return lambda text: like(f"(?!{wrong_prefix}).*", problem)(word(text))


def _prompts(text: str) -> tuple[tuple[str, str], ...]:
    """Return titles and messages; Slack shows up to four."""
    pairs = [part.partition(":") for part in text.split("|") if part.strip()]
    prompts = tuple((title.strip(), message.strip()) for title, _, message in pairs)
    if len(prompts) > 4 or not all(title and message for title, message in prompts):
        raise ValueError("is not up to four of TITLE: MESSAGE, with | between them")
    return prompts


def _keys(text: str) -> tuple[str, ...]:
    keys = words(text)
    for key in keys:
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", key):
            raise ValueError(f"is no key; this makes one: {KEY_MAKER}")
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackSettings(PlatformSettings):
    """The variables SLACK_*; the bot runs in Slack with a bot token, or a client id."""

    name: ClassVar[str] = "slack"
    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("client_id", "client_secret"),
        ("client_id", "public_url"),
        ("client_secret", "client_id"),
        ("store_key", "client_id"),
    )

    bot_token: str = setting(
        "",
        _token("xapp-", "is an app-level token: it belongs in SLACK_APP_TOKEN"),
        "Slack bot token (xoxb-...)",
        secret=True,
    )
    app_token: str = setting(
        "",
        _token("xoxb-", "is a bot token: it belongs in SLACK_BOT_TOKEN"),
        "Slack app-level token (xapp-...): events come over Socket Mode",
        secret=True,
    )
    signing_secret: str = setting(
        "",
        word,
        "Slack signing secret: without an app-level token events come to /slack/events",
        secret=True,
    )
    client_id: str = setting(
        "", word, "client id of a Slack app that several workspaces install, without a bot token"
    )
    client_secret: str = setting("", word, "client secret of that app", secret=True)
    store_key: tuple[str, ...] = setting(
        (),
        _keys,
        "key with which the tokens of those workspaces are encrypted in the store; a new one goes"
        " before the old one, with a comma between them",
        secret=True,
    )
    public_url: str = setting(
        "",
        url("https", beside_token=True),
        "where Slack and people reach the bot (https://bot.example.com), to install that app",
    )
    api_url: str = setting(
        "", url("http", "https", beside_token=True), "another address of Slack's Web API"
    )
    suggested_prompts: tuple[tuple[str, str], ...] = setting(
        (),
        _prompts,
        "up to four questions that Slack suggests in a DM, TITLE: MESSAGE with a vertical bar"
        " between them; empty means two examples",
    )
    limits: float = setting(
        1.0,
        within(1, 10, float),
        "how many times Slack's documented limits of each workspace are tried, up to 10: Slack may"
        " allow more than it documents, and a 429 lowers it for ten minutes",
    )

    @property
    def is_configured(self) -> bool:
        """Whether there is a bot token, or the app that brings them."""
        return bool(self.bot_token or self.client_id)

    @property
    def post_path(self) -> str:
        """The path of events, if they do not come over Socket Mode."""
        return "" if self.app_token else "/slack/events"

    @property
    def get_paths(self) -> tuple[str, ...]:
        """The paths of the pages by which a workspace installs the app."""
        return (INSTALL_PATH, REDIRECT_PATH) if self.client_id else ()

    def public(self, path: str) -> str:
        """Return the address at which people reach a path."""
        return self.public_url.rstrip("/") + path

    def mistakes(self, settings: Settings) -> Iterator[str]:
        """Yield two ways into workspaces, or none."""
        both = [name for name in ("bot_token", "client_id") if getattr(self, name)]
        yield from two_ways([self.variable(name) for name in both], "into a workspace")
        for name in ("app_token", "signing_secret"):
            if getattr(self, name) and not both:
                yield f"{self.variable(name)} needs SLACK_BOT_TOKEN beside it"
        if self.client_id and not self.store_key:
            yield f"SLACK_CLIENT_ID needs SLACK_STORE_KEY beside it; this makes one: {KEY_MAKER}"

    def lacks(self) -> Iterator[str]:
        """Yield that nothing brings its events."""
        if not (self.app_token or self.signing_secret):
            yield "the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET"
