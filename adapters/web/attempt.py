"""The state of a sign-in at a provider."""

from __future__ import annotations

import secrets
from dataclasses import dataclass


class SignInFailed(Exception):
    """Sign-in at the provider failed; `str` is for the log and holds no secret."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """State of a sign-in, stored in a signed cookie."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Attempt:
        """Return a new attempt with random values."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))
