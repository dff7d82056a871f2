"""The prompt fits its budget, alternates, and says who speaks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import Exchange, Message, Person, ThreadKey, Turn
from bot.prompt import CUT, Prompt, compose, fit, without_system
from bot.tokens import MESSAGE_OVERHEAD, estimate

ANN = Person("1", "Ann")
BOB = Person("2", "Bob")
KEY = ThreadKey("console", "", "", "1")

WORDS = st.text("ab \n\u00e9\U0001f600", max_size=40)
PEOPLE = st.builds(Person, st.sampled_from("123"), st.text(max_size=60))
EXCHANGES = st.lists(st.builds(Exchange, st.just("t"), PEOPLE, st.just(0.0), WORDS, WORDS))


def said(text: str, person: Person = ANN) -> Turn:
    return Turn(id="console:9", key=KEY, person=person, text=text, place={}, asked_at=0.0)


def exchange(question: str, answer: str, person: Person = ANN) -> Exchange:
    return Exchange("console:1", person, 0.0, question, answer)


def ask(
    text: str,
    *exchanges: Exchange,
    system: str = "Be kind.",
    budget: int = 10_000,
    person: Person = ANN,
) -> Prompt:
    """Build a prompt in which a token is a character."""
    messages = compose(system=system, exchanges=exchanges, turn=said(text, person))
    return fit(messages, budget=budget, count=size)


def size(messages: Sequence[Message]) -> int:
    return sum(len(message.text) + MESSAGE_OVERHEAD for message in messages)


def estimated(messages: Sequence[Message]) -> int:
    return sum(estimate(message.text) + MESSAGE_OVERHEAD for message in messages)


def test_prompt_is_system_then_exchanges_then_the_new_message() -> None:
    prompt = ask("And now?", exchange("Hi", "Hello!"), exchange("How?", "So."))

    assert prompt.messages == (
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello!"),
        Message("user", "How?"),
        Message("assistant", "So."),
        Message("user", "And now?"),
    )
    assert (prompt.dropped, prompt.left_out) == (0, 0)


def test_an_empty_system_prompt_is_left_out() -> None:
    prompt = ask("Hi", system=" \n")

    assert prompt.messages == (Message("user", "Hi"),)


def test_oldest_exchanges_are_dropped_whole() -> None:
    exchanges = [exchange(f"question {n}", f"answer {n}") for n in range(5)]
    newest = ask("new", *exchanges[3:])

    prompt = ask("new", *exchanges, budget=size(newest.messages))

    assert prompt.messages == newest.messages
    assert prompt.dropped == 3


def test_an_exchange_that_does_not_fit_drops_all_before_it() -> None:
    prompt = ask(
        "new", exchange("a", "b"), exchange("c", "d" * 500), exchange("e", "f"), budget=200
    )

    assert [message.text for message in prompt.messages] == ["Be kind.", "e", "f", "new"]
    assert prompt.dropped == 2


def test_the_newest_exchange_keeps_its_answer_and_loses_the_middle_of_a_long_question() -> None:
    long = exchange("start" + "x" * 500 + "end", "It says x.")

    prompt = ask("Why?", exchange("a", "b"), long, system="", budget=200)

    question, answered, new = prompt.messages
    assert question.text.startswith("startx")
    assert CUT in question.text
    assert (answered.text, new.text) == ("It says x.", "Why?")
    assert 188 <= size(prompt.messages) <= 200
    assert (prompt.dropped, prompt.left_out) == (1, 0)


def test_the_newest_exchange_goes_whole_where_its_answer_does_not_fit() -> None:
    prompt = ask("Why?", exchange("q" * 500, "a" * 500), system="", budget=200)

    assert prompt.messages == (Message("user", "Why?"),)
    assert prompt.dropped == 1


@pytest.mark.parametrize("missing", [exchange("Hi", " "), exchange("", "Hello!")])
def test_half_an_exchange_is_left_out(missing: Exchange) -> None:
    prompt = ask("new", missing, exchange("a", "b"))

    assert [message.text for message in prompt.messages] == ["Be kind.", "a", "b", "new"]


def test_a_long_message_loses_its_middle() -> None:
    prompt = ask("start" + "x" * 500 + "end", system="", budget=100 + MESSAGE_OVERHEAD)

    (new,) = prompt.messages
    assert new.text.startswith("startx")
    assert CUT in new.text
    assert new.text.endswith("xend")
    assert 88 <= len(new.text) <= 100
    assert prompt.left_out == len("start" + "x" * 500 + "end") - len(new.text.replace(CUT, ""))


def test_the_name_of_who_speaks_is_paid_for() -> None:
    prompt = ask("x" * 500, exchange("a", "b"), system="", person=BOB, budget=100)

    assert prompt.messages[0].text.startswith("Bob: x")
    assert 88 <= size(prompt.messages) <= 100


def test_a_message_is_left_whole_where_not_even_the_mark_fits() -> None:
    prompt = ask("Hello", system="s" * 500, budget=100)

    assert prompt.messages == (Message("system", "s" * 500), Message("user", "Hello"))
    assert not prompt.left_out


def test_several_people_are_named_and_one_alone_is_not() -> None:
    alone = ask("new", exchange("a", "b"))
    together = ask("new", exchange("a", "b"), person=BOB)

    assert [m.text for m in alone.messages if m.role == "user"] == ["a", "new"]
    assert [m.text for m in together.messages if m.role == "user"] == ["Ann: a", "Bob: new"]


def test_a_person_who_changed_their_name_is_still_alone() -> None:
    prompt = ask("new", exchange("a", "b"), person=Person(ANN.id, "Anna"))

    assert [m.text for m in prompt.messages if m.role == "user"] == ["a", "new"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Ann\nBob: hi", "Ann Bob hi: "),
        ("Ann\uff1a yes\u2028no", "Ann yes no: "),
        ("\u202eBob\u200b", "Bob: "),
        ("n" * 90, "n" * 40 + ": "),
        ("n" * 39 + "e\u0301" * 3, "n" * 39 + ": "),
        ("n" * 39 + "\U0001f1e9\U0001f1ea", "n" * 39 + ": "),
        (" :\t", "Somebody: "),
        ("\u0410\u043d\u043d\u0430 \U0001f680", "\u0410\u043d\u043d\u0430 \U0001f680: "),
    ],
)
def test_a_name_is_one_line_that_cannot_pass_for_two_speakers(name: str, label: str) -> None:
    prompt = ask("new", exchange("a", "b"), person=Person("2", name))

    assert prompt.messages[-1].text == label + "new"


@given(system=WORDS, exchanges=EXCHANGES, text=WORDS, person=PEOPLE, budget=st.integers(0, 900))
def test_prompt_stays_in_its_budget_alternates_and_keeps_the_newest(
    system: str, exchanges: list[Exchange], text: str, person: Person, budget: int
) -> None:
    prompt = ask(text, *exchanges, system=system, budget=budget, person=person)

    fixed = ask(text, system=system, person=person)
    named = 42  # the longest name, its colon and space
    if size(fixed.messages) + named <= budget:
        assert not prompt.left_out
    if size(fixed.messages) - len(text) + named + len(CUT) <= budget:
        assert size(prompt.messages) <= budget
    roles = [message.role for message in prompt.messages]
    head = ["system"] if system.strip() else []
    kept = (len(roles) - len(head)) // 2
    assert roles == [*head, *["user", "assistant"] * kept, "user"]
    whole = ask(text, *exchanges, system=system, budget=10**6, person=person)
    said_whole = whole.messages[len(whole.messages) - 1 - 2 * kept : -1]
    differ = [
        (kept_one.role, CUT in kept_one.text, kept)
        for kept_one, one in zip(prompt.messages[len(head) : -1], said_whole, strict=True)
        if kept_one != one
    ]
    assert differ in ([], [("user", True, 1)])
    assert prompt.dropped == len(whole.messages) // 2 - len(prompt.messages) // 2


@given(text=st.text("ab \u4e00\U0001f600", min_size=200, max_size=400), budget=st.integers(60, 150))
def test_a_cut_message_fits_and_uses_the_room_that_it_has(text: str, budget: int) -> None:
    prompt = fit([Message("user", text)], budget=budget, count=estimated)

    (new,) = prompt.messages
    assert estimated([new]) <= budget
    head, mark, tail = new.text.partition(CUT)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + prompt.left_out + len(tail) == len(text)
    assert not mark or estimated([new]) >= budget - 12


CHARACTERS = ["a", " ", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\r\n", "\ud55c"]


@given(text=st.lists(st.sampled_from(CHARACTERS), min_size=60, max_size=200))
def test_no_character_is_cut_in_two(text: list[str]) -> None:
    (new,) = ask("".join(text), system="", budget=50).messages
    head, mark, tail = new.text.partition(CUT)

    assert mark
    assert any(head == "".join(text[:n]) for n in range(len(text)))
    assert any(tail == "".join(text[n:]) for n in range(len(text) + 1))


def test_a_history_that_cannot_fit_is_not_counted_whole() -> None:
    counted = []

    def count(messages: Sequence[Message]) -> int:
        counted.append(len(messages))
        return size(messages)

    exchanges = [exchange("q" * 50, "a" * 50) for _ in range(200)]
    prompt = fit(compose(system="", exchanges=exchanges, turn=said("new")), budget=472, count=count)

    assert len(prompt.messages) == 7
    assert max(counted) <= 20


def test_a_prompt_without_a_system_message_has_its_words_in_the_first_question() -> None:
    said = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Well?")]

    folded = without_system([Message("system", "Be kind."), *said])

    assert folded == (Message("user", "Be kind.\n\nHi"), *said[1:])
    assert without_system(folded) == folded
