"""The platforms' own descriptions of their APIs, where they are at hand."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "shared" / "specs"
ABSENT = "needs the platforms' API descriptions in ../shared/specs, beside the repository"


@functools.cache
def load(name: str) -> dict[str, Any] | None:
    """Return one description as JSON; None where it is not at hand.

    `discord-openapi.json` is github.com/discord/discord-api-spec (OpenAPI 3.1);
    `slack-web-openapi.json` (Swagger 2.0) and `slack-events-asyncapi.json` are
    github.com/slackapi/slack-api-specs, of 2021.
    """
    path = FOLDER / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
