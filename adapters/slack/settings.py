"""The settings of Slack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from config.settings import PlatformSettings
from config.variables import like, setting, url, within, word


def _token(wrong_prefix: str, problem: str) -> Callable[[str], str]:
    return lambda text: like(f"(?!{wrong_prefix}).*", problem)(word(text))


def _prompts(text: str) -> tuple[tuple[str, str], ...]:
    """Return titles and messages; Slack shows up to four."""
    pairs = [part.partition(":") for part in text.split("|") if part.strip()]
    prompts = tuple((title.strip(), message.strip()) for title, _, message in pairs)
    if len(prompts) > 4 or not all(title and message for title, message in prompts):
        raise ValueError("is not up to four of TITLE: MESSAGE, with | between them")
    return prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackSettings(PlatformSettings):
    """The variables SLACK_*; the bot runs in Slack if it has a bot token."""

    name: ClassVar[str] = "slack"
    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("app_token", "bot_token"),
        ("signing_secret", "bot_token"),
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
        """Whether there is a bot token."""
        return bool(self.bot_token)

    @property
    def post_path(self) -> str:
        """The path of events, if they do not come over Socket Mode."""
        return "" if self.app_token else "/slack/events"

    def lacks(self) -> Iterator[str]:
        """Yield that nothing brings its events."""
        if not (self.app_token or self.signing_secret):
            yield "the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET"
