"""The judge of the chaos runs finds each thing that may not be, and goes on after it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bot.domain import Exchange, Json, Person
from bot.errors import GivenUp
from tests.chaos.judge import Verdict, judge
from tests.chaos.recovery import Kill, recoveries
from tests.chaos.screens import read
from tests.chaos.talks import LONG, Talk, answer_to, question
from tests.emulators.model.asked import Asked

APOLOGY = GivenUp.apology
ANN = Person("U1", "Ann")


def part_of(number: int) -> str:
    return answer_to(number)[:40]


def ends(asked: Sequence[int], *shown: str) -> dict[int, str]:
    return {seen.number: seen.end for seen in read(asked, shown).turns}


def extras(asked: Sequence[int], *shown: str) -> list[str]:
    return [kind for kind, _ in read(asked, shown).extras]


@pytest.mark.parametrize(
    ("shown", "end"),
    [
        ((answer_to(1),), "whole"),
        ((APOLOGY,), "apology"),
        ((f"{part_of(1)}\n{APOLOGY}",), "part and apology"),
        ((f"Answ\n{APOLOGY}",), "part and apology"),
        ((part_of(1), APOLOGY), "part and apology"),
        ((f"{answer_to(1)}\n{APOLOGY}",), "whole and apology"),
        ((answer_to(1), APOLOGY), "whole and apology"),
        ((part_of(1),), "half"),
        ((f"{part_of(1)} and so on",), "half"),
        ((f"{part_of(1)} and so on\n{APOLOGY}",), "half"),
        ((), "lost"),
    ],
)
def test_screen_tells_how_a_turn_ended(shown: tuple[str, ...], end: str) -> None:
    assert ends([1], *shown) == {1: end}
    assert not extras([1], *shown)


def test_screen_joins_the_messages_of_a_long_answer() -> None:
    text = answer_to(LONG)

    assert ends([LONG, 2], text[:900], text[900:], answer_to(2)) == {LONG: "whole", 2: "whole"}


def test_screen_goes_on_after_each_problem() -> None:
    shown = (answer_to(1), part_of(2), answer_to(3), f"{answer_to(4)}\n{APOLOGY}", answer_to(6))

    assert ends([1, 2, 3, 4, 5, 6], *shown) == {
        1: "whole",
        2: "half",
        3: "whole",
        4: "whole and apology",
        5: "lost",
        6: "whole",
    }


def test_screen_gives_an_apology_of_its_own_to_the_turn_that_shows_nothing_else() -> None:
    shown = (answer_to(1), APOLOGY, answer_to(3))

    assert ends([1, 2, 3], *shown) == {1: "whole", 2: "apology", 3: "whole"}


def test_screen_gives_each_apology_to_a_turn_of_its_own() -> None:
    assert ends([1, 2], APOLOGY, APOLOGY) == {1: "apology", 2: "apology"}


@pytest.mark.parametrize(
    ("shown", "extra"),
    [
        ((answer_to(1), answer_to(1)), "doubled"),
        ((part_of(1), answer_to(1)), "doubled"),
        ((answer_to(1), part_of(1)), "doubled"),
        ((answer_to(1), answer_to(2)), "stray"),
        ((answer_to(1), "(Stopped.)"), "stray"),
        ((f"{answer_to(1)}\n\n(Still thinking…)",), "stray"),
        (("Hello", answer_to(1)), "stray"),
        ((f"{answer_to(1)}\n{APOLOGY}", APOLOGY), "stray"),
    ],
)
def test_screen_tells_what_stands_there_besides(shown: tuple[str, ...], extra: str) -> None:
    screen = read([1], shown)

    assert [kind for kind, _ in screen.extras] == [extra]
    assert [seen.end.split()[0] for seen in screen.turns] == ["whole"]


class MadeUp(Talk):
    """A talk whose screen is written by hand."""

    def __init__(self, asked: Sequence[int], *shown: str, buttons: Sequence[str] = ()) -> None:
        super().__init__("made up", list(asked))
        self._shown, self._buttons = list(shown), list(buttons)

    def shown(self) -> list[str]:
        return self._shown

    def buttons(self) -> list[str]:
        return self._buttons


def exchange(number: int, answer: str = "") -> Exchange:
    return Exchange(f"t{number}", ANN, 0.0, question(number), answer or answer_to(number))


def prompt(number: int, *before: int, finished: bool = True, at: float = 0.0) -> Asked:
    messages: list[Json] = [{"role": "system", "content": "Be brief."}]
    for each in before:
        messages.append({"role": "user", "content": question(each)})
        messages.append({"role": "assistant", "content": answer_to(each)})
    messages.append({"role": "user", "content": question(number)})
    return Asked("POST", at, {}, {"messages": messages}, finished=finished)


def judged(
    *talks: Talk,
    asked: Sequence[Asked] = (),
    remembered: Sequence[Sequence[Exchange]] = (),
    logs: Sequence[str] = (),
) -> Verdict:
    return judge(talks, asked=asked, remembered=remembered, logs=logs)


def test_judge_counts_every_turn_once_whatever_else_is_wrong() -> None:
    first = MadeUp([1, 2, 3], answer_to(1), part_of(2), answer_to(1), f"{answer_to(3)} {APOLOGY}")
    other = MadeUp([4, 5], APOLOGY, "Hello")

    counts = judged(first, other).counts

    assert counts == {
        "whole": 1,
        "half": 1,
        "whole and apology": 1,
        "apology": 1,
        "lost": 1,
        "doubled": 1,
        "stray": 1,
    }


def test_judge_finds_nothing_wrong_with_what_is_right() -> None:
    cut = answer_to(2)[:40]
    talk = MadeUp([1, 2, 3, 4], answer_to(1), f"{cut}\n{APOLOGY}", APOLOGY, answer_to(4))
    asked = [prompt(1), prompt(2, 1, finished=False), prompt(4)]
    asked[2].messages[1:1] = [
        {"role": "user", "content": question(1)},
        {"role": "assistant", "content": answer_to(1)},
        {"role": "user", "content": question(2)},
        {"role": "assistant", "content": cut},
    ]

    verdict = judged(talk, asked=asked, remembered=[[exchange(1), exchange(2, cut), exchange(4)]])

    assert not verdict.problems


@pytest.mark.parametrize(
    ("remembered", "words"),
    [
        ([exchange(1)], "the history has nothing of 2"),
        ([exchange(1), exchange(2, part_of(2))], "the history has of 2"),
        ([exchange(1), exchange(2, answer_to(3))], "the history has of 2"),
        ([exchange(2), exchange(1)], "before 1"),
        ([exchange(1), exchange(1), exchange(2)], "remembered twice"),
        ([exchange(1), exchange(2), exchange(3)], "what nobody was shown"),
    ],
)
def test_judge_compares_the_history_with_the_screen(remembered: list[Exchange], words: str) -> None:
    talk = MadeUp([1, 2, 3], answer_to(1), answer_to(2), APOLOGY)

    assert words in str(judged(talk, remembered=[remembered]).problems)


@pytest.mark.parametrize("wrong", [prompt(3), prompt(3, 2), prompt(3, 2, 1), prompt(3, 1, 2, 2)])
def test_judge_finds_a_prompt_that_lacks_an_exchange_or_has_one_too_many(wrong: Asked) -> None:
    talk = MadeUp([1, 2, 3], *map(answer_to, (1, 2, 3)))

    # A prompt may begin later, where the context is full, with one exchange at least.
    is_short = len(wrong.messages) == 4
    history = [exchange(1), exchange(2), exchange(3)]
    found = "the prompt of 3" in str(judged(talk, asked=[wrong], remembered=[history]).problems)

    assert found is not is_short


def test_judge_looks_at_what_follows_a_broken_turn() -> None:
    talk = MadeUp([1, 2, 3], answer_to(1), part_of(2), answer_to(3))
    history = [exchange(1), exchange(2, part_of(2)), exchange(3)]

    right = judged(talk, asked=[prompt(3, 1), prompt(3, 1, 2)], remembered=[history])
    wrong = judged(talk, asked=[prompt(3)], remembered=[history[:2]])

    assert [each.split(":")[0] for each in right.problems] == ["half"]
    assert "the prompt of 3" in str(wrong.problems)
    assert "the history has nothing of 3" in str(wrong.problems)


def test_judge_finds_a_button_to_stop_and_a_traceback() -> None:
    talk = MadeUp([1], answer_to(1), buttons=["regenerate", "stop"])
    log = "2026-01-01T00:00:00.000 A turn failed\nTraceback (most recent call last):\n  x\nKeyError"

    problems = str(judged(talk, remembered=[[exchange(1)]], logs=[log]).problems)

    assert "a button to stop" in problems
    assert "KeyError" in problems


def test_recovery_begins_anew_where_the_one_that_took_over_is_killed_before_it_asks() -> None:
    asked = [prompt(7, at=1.0), prompt(8, at=2.2), prompt(7, at=4.0)]
    kills = [Kill(2.0, frozenset({7})), Kill(3.0, frozenset({7, 9})), Kill(3.5, frozenset({8}))]

    found = [(one.number, one.seconds, one.others) for one in recoveries(asked, kills)]

    assert found == [(7, 1.0, 1)]


@pytest.mark.parametrize(
    ("up", "attended"), [(frozenset({2, 3}), True), (frozenset({2}), False), (frozenset(), False)]
)
def test_recovery_is_attended_when_another_process_lives_through_it(
    up: frozenset[int], attended: bool
) -> None:
    kills = [Kill(2.0, frozenset({7}), 1, up), Kill(2.5, pid=2)]

    [one] = recoveries([prompt(7, at=3.0)], kills)

    assert one.attended is attended


def test_recovery_is_not_measured_by_what_the_dead_process_had_asked() -> None:
    asked = [prompt(7, at=2.05), prompt(7, at=2.8)]

    [one] = recoveries(asked, [Kill(2.0, frozenset({7}))])

    assert one.seconds == pytest.approx(0.8)
