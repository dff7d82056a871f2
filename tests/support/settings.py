"""Settings by the names of their variables, of the core and of platforms alike."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bot.app.platforms import all_specs
from config.settings import Settings


def settings_of(**values: Any) -> Settings:
    """Return settings; `discord_token` is DISCORD_TOKEN, with the value that its parser returns."""
    own: dict[str, dict[str, Any]] = defaultdict(dict)
    core = {}
    for name, value in values.items():
        platform, _, rest = name.partition("_")
        if platform in {spec.name for spec in all_specs()} and rest:
            own[platform][rest] = value
        else:
            core[name] = value
    platforms = {spec.name: spec.settings(**own[spec.name]) for spec in all_specs()}
    return Settings(platforms=platforms, **core)


def value_of(settings: Settings, variable: str) -> Any:
    """Return the value of a variable."""
    platform, _, rest = variable.lower().partition("_")
    if platform in settings.platforms:
        return getattr(settings.platforms[platform], rest)
    return getattr(settings, variable.lower())
