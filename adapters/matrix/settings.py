"""The settings of Matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from config.settings import PlatformSettings
from config.variables import setting, url, word


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSettings(PlatformSettings):
    """The variables MATRIX_*; the bot runs where there is a token."""

    name: ClassVar[str] = "matrix"
    # `init` asks for the homeserver first, so that one alone is no mistake.
    needs: ClassVar[tuple[tuple[str, str], ...]] = (("token", "homeserver"),)

    homeserver: str = setting(
        "",
        url("https", "http", beside_token=True),
        "address of the bot's Matrix homeserver (https://matrix.example.org)",
    )
    token: str = setting("", word, "Matrix access token of the bot's account", secret=True)

    @property
    def is_configured(self) -> bool:
        """Whether there is an account."""
        return bool(self.token and self.homeserver)
