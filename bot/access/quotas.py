"""How much may be used in a day and a month, how much is, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a person, and all people of a server together, may use: in a day or a month (UTC).

    None is no limit. Tokens are those of the model, read and written. Money is for a month, in
    millionths.
    """

    questions: int | None = None
    tokens: int | None = None
    server_tokens: int | None = None
    money: int | None = None
    server_money: int | None = None


class Estimate(NamedTuple):
    """What a turn will need at most: tokens, and money in millionths."""

    tokens: int
    money: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a person and a server have used today, and their quota.

    The tokens of questions without an answer are estimated. `renews_in` is in seconds. `calls` are
    those of tools, which are counted if there is a limit. `money` and `server_money` are those of
    this month, in millionths, until `month_renews_in`.
    """

    questions: int
    tokens: int
    server_tokens: int
    quota: Quota
    renews_in: float
    calls: int = 0
    calls_per_day: int | None = None
    money: int = 0
    server_money: int = 0
    month_renews_in: float = 0.0


def money_of(used: int, most: int) -> str:
    """Return how much of how much is used, in dollars, from millionths."""
    return f"${used / MILLION:,.2f} of ${most / MILLION:,.2f}"


class Price(NamedTuple):
    """What a million tokens cost, read and written."""

    read: float
    written: float

    def of(self, read: int, written: int) -> int:
        """Return the price of tokens, in millionths."""
        return round(read * self.read + written * self.written)


class Prices:
    """The prices of models, by their names and labels; those `known` later do not replace them."""

    def __init__(self, fixed: Mapping[str, Price] | None = None) -> None:
        self._fixed = dict(fixed or {})
        self.known: dict[str, Price] = {}

    def of(self, model: str) -> Price | None:
        """Return a model's price; None if it is not known."""
        return self._fixed.get(model) or self.known.get(model)
