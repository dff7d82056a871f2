"""One attempt to sign in at a provider."""

from __future__ import annotations

import secrets
from dataclasses import dataclass


class SignInFailed(Exception):
    """Sign-in at the provider failed; `str` is for the log and holds no secret."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a browser keeps, signed, while it is at the provider."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> Attempt:
        """Return an attempt that nobody can guess."""
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))
