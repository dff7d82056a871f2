"""The judge of the chaos runs finds each thing that may not be, and goes on after it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bot.domain import Exchange, Json, Person
from bot.errors import GivenUp
from tests.chaos.judge import Verdict, judge
from tests.chaos.screens import read
from tests.chaos.talks import ANEW, APOLOGIES, LONG, Gone, Talk, answer_to, question, remark
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


def test_screen_gives_an_apology_of_its_own_to_the_turn_that_shows_nothing_else() -> None:
    shown = (answer_to(1), APOLOGY, answer_to(3))

    assert ends([1, 2, 3], *shown) == {1: "whole", 2: "apology", 3: "whole"}


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


FAILED_ANEW = ANEW[APOLOGIES.index(APOLOGY)]


@pytest.mark.parametrize(
    ("shown", "end"),
    [
        ((answer_to(2),), "whole"),
        ((answer_to(1),), "stale"),
        ((part_of(1),), "stale"),
        ((f"{answer_to(1)}\n{APOLOGY}",), "stale"),
        ((f"{answer_to(1)}\n{FAILED_ANEW}",), "former and apology"),
        ((f"{answer_to(1)[:8]}\n{FAILED_ANEW}",), "former and apology"),
        ((f"{part_of(1)}\n{APOLOGY}\n{FAILED_ANEW}",), "former and apology"),
        ((f"{answer_to(2)}\n{FAILED_ANEW}",), "half"),
        ((part_of(2),), "half"),
        ((), "lost"),
    ],
)
def test_screen_tells_whether_the_newest_text_of_a_question_is_answered(
    shown: tuple[str, ...], end: str
) -> None:
    screen = read([2], shown, former={1: 2})

    assert [(seen.number, seen.end) for seen in screen.turns] == [(2, end)]
    assert not screen.extras


@pytest.mark.parametrize(
    ("what", "shown", "extra"),
    [
        ("question", (), []),
        ("question", (answer_to(2),), []),
        ("question", (f"{part_of(2)}\n(Stopped.)",), []),
        ("question", ("(Stopped.)",), []),
        ("question", (APOLOGY,), []),
        ("question", (part_of(2),), ["unended"]),
        ("answer", (), []),
        ("answer", (answer_to(2),), ["anew"]),
        ("answer", (part_of(2),), ["anew"]),
    ],
)
def test_screen_tells_what_is_left_of_what_was_deleted(
    what: Gone, shown: tuple[str, ...], extra: list[str]
) -> None:
    screen = read([1], (answer_to(1), *shown), gone={2: what})

    assert [kind for kind, _ in screen.extras] == extra
    assert [(seen.number, seen.end) for seen in screen.turns] == [(1, "whole")]


def test_screen_knows_an_answer_by_what_it_depends_on() -> None:
    heard = answer_to(1, (3, 4))

    assert ends([1], heard) == {1: "whole"}
    assert ends([1], f"{heard[:18]}\n{APOLOGY}") == {1: "part and apology"}
    assert ends([1], f"{heard[:10]}\n{APOLOGY}") == {1: "part and apology"}
    assert ends([1], heard.replace("heard 3,4", "heard 3")) == {1: "half"}


class MadeUp(Talk):
    """A talk whose screen is written by hand."""

    def __init__(self, asked: Sequence[int], *shown: str, buttons: Sequence[str] = ()) -> None:
        super().__init__("made up", list(asked))
        self._shown, self._buttons = list(shown), list(buttons)
        self.is_joined = False

    def shown(self) -> list[str]:
        return self._shown

    def buttons(self) -> list[str]:
        return self._buttons

    def message_of(self, number: int) -> str:
        return f"t{number}:"


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


def test_judge_finds_nothing_wrong_with_what_is_right() -> None:
    cut = answer_to(2)[:40]
    talk = MadeUp([1, 2, 3, 4], answer_to(1), f"{cut}\n{APOLOGY}", APOLOGY, answer_to(4))
    asked = [prompt(1), prompt(2, 1, finished=False), prompt(4)]
    asked[2].sent[1:1] = [
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


def edited() -> MadeUp:
    talk = MadeUp([1, 3, 4], *map(answer_to, (1, 3, 4)))
    talk.former = {2: 3}
    return talk


def test_judge_wants_the_newest_text_of_a_question_in_history_and_prompts() -> None:
    right = [[exchange(1), exchange(3), exchange(4)]]
    stale = [[exchange(1), exchange(2), exchange(4)]]

    assert not judged(edited(), asked=[prompt(4, 1, 3)], remembered=right).problems
    assert "nothing of 3" in str(judged(edited(), remembered=stale).problems)
    wrong = judged(edited(), asked=[prompt(4, 1, 2)], remembered=right)
    assert "the prompt of 4" in str(wrong.problems)


@pytest.mark.parametrize("what", ["question", "answer"])
def test_judge_finds_what_was_deleted_in_history_and_later_prompts(what: Gone) -> None:
    talk = MadeUp([1, 4], answer_to(1), answer_to(4))
    talk.gone, talk.former = {3: what}, {2: 3}
    forgotten = [[exchange(1), exchange(4)]]
    words = f"whose {what} was deleted"

    assert not judged(talk, asked=[prompt(3, 1), prompt(4, 1)], remembered=forgotten).problems
    for number in (2, 3):
        kept = [[exchange(1), exchange(number), exchange(4)]]
        assert f"the history has 3, {words}" in str(judged(talk, remembered=kept).problems)
        for late in (prompt(4, 1, number), prompt(4, 1, number, finished=False)):
            problems = judged(talk, asked=[late], remembered=forgotten).problems
            assert f"the prompt of 4 shows 3, {words}" in str(problems)


def joined(*heard: int) -> MadeUp:
    talk = MadeUp([12], answer_to(12, heard))
    talk.is_joined, talk.remarks = True, [10, 11, 13]
    return talk


def told_of(number: int, *heard: int) -> Asked:
    one = prompt(number)
    one.sent[-1]["content"] = "\n".join([*map(remark, heard), f"Ann: {question(number)}"])
    return one


UNREAD = "Turn t12: what was said before in x is not read: away"


def test_judge_accepts_a_context_that_is_in_the_history_of_the_prompt() -> None:
    late = told_of(12)
    late.sent[0]["content"] += "\n".join(map(remark, (10, 11)))

    assert not judged(joined(), asked=[late], remembered=[[exchange(12)]]).problems


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ([(10, 11)], ""),
        ([(11, 10)], ""),
        ([(10, 11), (10, 11)], ""),
        ([(10, 11), (10,)], "changes"),
        ([(10, 11), ()], "changes"),
        ([(10, 11, 13)], "is (10, 11, 13), not [10, 11]"),
        ([(10, 11, 9)], "is (10, 11, 9), not [10, 11]"),
        ([(10, 11, 11)], "is (10, 11, 11), not [10, 11]"),
        ([(11,)], "lacks some of [10, 11]: [(11,)]"),
        ([()], "lacks some of [10, 11]: [()]"),
    ],
)
def test_judge_compares_the_contexts_of_a_turn(prompts: list[tuple[int, ...]], words: str) -> None:
    asked = [told_of(12, *heard) for heard in prompts]
    answered = prompts[0]
    history = [[exchange(12, answer_to(12, answered))]]

    problems = judged(joined(*answered), asked=asked, remembered=history).problems

    assert words in str(problems)
    assert bool(problems) is bool(words)


def test_judge_excuses_a_context_that_could_not_be_read() -> None:
    asked, history = [told_of(12), told_of(12, 10, 11)], [[exchange(12, answer_to(12, (10, 11)))]]

    def problems(log: str) -> str:
        return str(judged(joined(10, 11), asked=asked, remembered=history, logs=[log]).problems)

    assert problems(UNREAD) == "[]"
    assert "changes" in problems(UNREAD.replace("t12", "t13"))


def test_judge_finds_a_button_to_stop_and_a_traceback() -> None:
    talk = MadeUp([1], answer_to(1), buttons=["regenerate", "stop"])
    log = "2026-01-01T00:00:00.000 A turn failed\nTraceback (most recent call last):\n  x\nKeyError"

    problems = str(judged(talk, remembered=[[exchange(1)]], logs=[log]).problems)

    assert "a button to stop" in problems
    assert "KeyError" in problems
