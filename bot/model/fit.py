"""Fits a prompt into a number of tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bot.domain import Message
from bot.text.truncate import CUT, left_out, without_middle

_CLOSE = 12  # tokens of the budget that a shortened message may leave unused

Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, the number of exchanges that were dropped, and what the new message lost.

    `left_out` counts characters.
    """

    messages: tuple[Message, ...]
    dropped: int
    left_out: int


def fit(messages: Sequence[Message], *, budget: int, count: Count) -> Prompt:
    """Return as much of a composed prompt as `count` finds within `budget`, in tokens.

    Exchanges are dropped whole, oldest first. If not even the newest fits, its question loses its
    middle, so that the answer to a long paste stays. The system prompt stays, and so does the new
    message: if it is too long, the mark "[…]" replaces its middle. If the system prompt leaves no
    room even for the mark, the message stays whole, and the model's server decides.
    """
    *earlier, last = messages
    head = earlier[:1] if earlier and earlier[0].role == "system" else []
    earlier = earlier[len(head) :]
    new = _shorten(last, budget=budget, cost=lambda shorter: count([*head, shorter]))

    def newest(exchanges: int) -> list[Message]:
        return [*head, *earlier[len(earlier) - 2 * exchanges :], new]

    fitting = _largest(len(earlier) // 2, lambda exchanges: count(newest(exchanges)) <= budget)
    if earlier and not fitting:
        *_, question, answered = earlier
        question = _shorten(
            question, budget=budget, cost=lambda shorter: count([*head, shorter, answered, new])
        )
        earlier[-2:] = [question, answered]
        fitting = int(question.text != CUT and count(newest(1)) <= budget)
    return Prompt(
        tuple(newest(fitting)),
        dropped=len(earlier) // 2 - fitting,
        left_out=left_out(last.text, new.text),
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


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits, if all smaller numbers fit, too.

    Small numbers are tried first, so that far too long prompts are never counted.
    """
    beyond = 1
    while beyond <= limit and fits(beyond):
        beyond *= 2
    between = range(beyond // 2 + 1, min(beyond, limit + 1))
    return beyond // 2 + bisect_left(between, True, key=lambda number: not fits(number))


def _shorten(message: Message, *, budget: int, cost: Callable[[Message], int]) -> Message:
    """Return the message with as little cut from its middle as fits; itself if nothing helps."""
    text = message.text
    least = Message(message.role, CUT)
    whole_cost, least_cost = cost(message), cost(least)
    if whole_cost <= budget or least_cost > budget:
        return message
    fitting, fitting_cost, shortened = 0, least_cost, least
    beyond, beyond_cost = len(text), whole_cost
    guessed = True
    while beyond - fitting > 1 and budget - fitting_cost > _CLOSE:
        # In an even text the first guess is almost right; in others, halving ends the search.
        share = (budget - fitting_cost) / (beyond_cost - fitting_cost) if guessed else 0.5
        middle = min(max(fitting + int((beyond - fitting) * share), fitting + 1), beyond - 1)
        guessed = not guessed
        shorter = Message(message.role, without_middle(text, middle))
        if (middle_cost := cost(shorter)) <= budget:
            fitting, fitting_cost, shortened = middle, middle_cost, shorter
        else:
            beyond, beyond_cost = middle, middle_cost
    return shortened
