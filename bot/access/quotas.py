"""How much may be used in a day, and how much is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a person, and all people of a server together, may use in a day (UTC).

    None is no limit. Tokens are those of the model, read and written.
    """

    questions: int | None = None
    tokens: int | None = None
    server_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a person and a server have used today, and their quota.

    The tokens of questions without an answer are estimated. `renews_in` is in seconds. `calls` are
    those of tools, which are counted if there is a limit.
    """

    questions: int
    tokens: int
    server_tokens: int
    quota: Quota
    renews_in: float
    calls: int = 0
    calls_per_day: int | None = None
