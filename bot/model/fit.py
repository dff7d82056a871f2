"""Fits a prompt into a number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bot.domain import Message
from bot.text.truncate import CUT, left_out, without_middle

_CLOSE = 12  # tokens of the budget that a shortened message may leave unused

Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, how many exchanges found no room, and how much the new message lost.

    `left_out` counts characters.
    """

    messages: tuple[Message, ...]
    dropped: int
    left_out: int


def fit(messages: Sequence[Message], *, budget: int, count: Count) -> Prompt:
    """Return as much of a composed prompt as `count` finds within `budget`, in tokens.

    Exchanges are dropped whole, oldest first; where not even the newest fits, its question loses
    its middle, so that the answer to a long paste is not forgotten with it. The system prompt
    stays, and so does the new message: when it is too long, the mark "[…]" stands for its middle.
    Where the system prompt leaves no room even for the mark, the message is left whole, for the
    model's server to judge.
    """
    *said, asked = messages
    head = said[:1] if said and said[0].role == "system" else []
    said = said[len(head) :]
    new = _shorten(asked, budget=budget, cost=lambda shorter: count([*head, shorter]))

    def newest(exchanges: int) -> list[Message]:
        return [*head, *said[len(said) - 2 * exchanges :], new]

    kept = _most(len(said) // 2, lambda exchanges: count(newest(exchanges)) <= budget)
    if said and not kept:
        *_, question, answered = said
        question = _shorten(
            question, budget=budget, cost=lambda shorter: count([*head, shorter, answered, new])
        )
        said[-2:] = [question, answered]
        kept = int(question.text != CUT and count(newest(1)) <= budget)
    return Prompt(
        tuple(newest(kept)),
        dropped=len(said) // 2 - kept,
        left_out=left_out(asked.text, new.text),
    )


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with the system prompt at the head of the first question.

    For templates that know no system prompt: they refuse it by name, or as one that breaks the
    alternation of user and assistant.
    """
    if len(messages) < 2 or messages[0].role != "system":
        return tuple(messages)
    system, first, *rest = messages
    return Message(first.role, f"{system.text}\n\n{first.text}"), *rest


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits; what is smaller than it fits, too.

    It looks at small numbers first: what is far too much is never counted.
    """
    fitting, step = 0, 1
    while fitting + step <= limit and fits(fitting + step):
        fitting += step
        step *= 2
    beyond = min(fitting + step, limit + 1)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if fits(middle):
            fitting = middle
        else:
            beyond = middle
    return fitting


def _shorten(message: Message, *, budget: int, cost: Callable[[Message], int]) -> Message:
    """Return the message with as little taken from its middle as fits; itself if nothing helps."""
    text = message.text
    least = Message(message.role, CUT)
    whole_cost, least_cost = cost(message), cost(least)
    if whole_cost <= budget or least_cost > budget:
        return message
    kept, kept_cost, shortened = 0, least_cost, least
    beyond, beyond_cost = len(text), whole_cost
    guessed = True
    while beyond - kept > 1 and budget - kept_cost > _CLOSE:
        # Where a text is even, the first guess is almost right; where not, halving ends the search.
        share = (budget - kept_cost) / (beyond_cost - kept_cost) if guessed else 0.5
        middle = min(max(kept + int((beyond - kept) * share), kept + 1), beyond - 1)
        guessed = not guessed
        shorter = Message(message.role, without_middle(text, middle))
        if (middle_cost := cost(shorter)) <= budget:
            kept, kept_cost, shortened = middle, middle_cost, shorter
        else:
            beyond, beyond_cost = middle, middle_cost
    return shortened
