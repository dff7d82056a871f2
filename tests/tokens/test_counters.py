"""Prompts are counted by a tokenizer or the estimate, and each text once."""

from __future__ import annotations

from bot.domain import Message
from bot.tokens.counters import TokenEstimator


def test_half_a_surrogate_pair_is_counted() -> None:
    assert TokenEstimator().count([Message("user", "\ud83d")]) > 3


def test_a_text_is_counted_once() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    counter = TokenEstimator(count)
    for text in ("one", "one", "three"):
        counter.count([Message("user", text)])

    assert counted == ["one", "three"]


def test_only_so_many_counts_are_remembered() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return 1

    counter = TokenEstimator(count)
    texts = [Message("user", f"word {n}") for n in range(20_001)]
    for prompt in (texts[:1], texts[:1], texts, texts[:1]):
        counter.count(prompt)

    assert counted.count("word 0") == 2
