"""The figures of a reply are right for examples."""

from __future__ import annotations

import pytest

from bench.freshness import Freshness, freshness, token_delays
from tests.emulators.timeline import Delta, Moment

DELTAS = [Delta(0.0, "One "), Delta(1.0, "two "), Delta(2.0, "last.")]
WHOLE = "One two last."


def post(at: float, text: str, *, message: str = "1") -> Moment:
    return Moment(at, "post", message, text)


def edit(at: float, text: str, *, message: str = "1") -> Moment:
    return Moment(at, "edit", message, text)


def figures(
    first: float, mean: float, gap: float, last: float | None, *, whole: bool = True
) -> Freshness:
    return Freshness(first, pytest.approx(mean), gap, last, whole)  # type: ignore[arg-type]


# What stood there at two seconds does not stay.
SPOILT = figures(2, 1, 0, None, whole=False)


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([post(0, "One"), edit(1, "One two"), edit(2, WHOLE)], figures(0, 0, 1, 0)),
        # Each delta is as late as its last character: 0.5, 3 and 2 seconds; 3, 3 and 2.
        ([post(0.5, "One"), edit(4, WHOLE)], figures(0.5, 5.5 / 3, 3.5, 2)),
        ([post(1, "O"), edit(3, "One"), edit(4, WHOLE)], figures(1, 8 / 3, 2, 2)),
        # Of deltas that did not come to their ends nothing is known.
        ([post(0, "One"), edit(2, "One tw")], figures(0, 0, 2, None, whole=False)),
        ([post(0.5, "O")], figures(0.5, 0.5, 0, None, whole=False)),
        # Pages are joined in the order of posting: "last." counts once "two" stands before it.
        (
            [post(1, "One", message="9"), post(2, "last."), edit(3, "One two", message="9")],
            figures(1, 4 / 3, 2, 1),
        ),
        ([post(1, "One\n\ntwo"), post(2, "last.\n", message="2")], figures(1, 1 / 3, 1, 0)),
        ([Moment(0, "sign", "", "One"), post(2, WHOLE)], figures(2, 1, 0, 0)),
        ([post(2, WHOLE), edit(3, f"{WHOLE}\n\n(Stopped.)")], SPOILT),
        ([post(2, WHOLE), edit(3, "One two")], SPOILT),
        ([post(2, WHOLE), post(3, "and more", message="2")], SPOILT),
        ([post(2, WHOLE), Moment(3, "delete", "1", "")], SPOILT),
        # Since when it has stood there for good.
        (
            [post(2, WHOLE), edit(3, "One"), edit(5, WHOLE), edit(6, "One two  last.")],
            figures(2, 1, 0, 3),
        ),
        # Text that goes away is no growth.
        (
            [
                post(0, "One two"),
                Moment(1, "delete", "1", ""),
                post(3, "One", message="2"),
                edit(5, WHOLE, message="2"),
            ],
            figures(0, 2 / 3, 5, 3),
        ),
    ],
)
def test_a_reply_has_its_figures(moments: list[Moment], found: Freshness) -> None:
    assert freshness(DELTAS, moments) == found


def test_each_delta_that_came_to_its_end_has_a_delay() -> None:
    assert token_delays(DELTAS, [post(0.5, "One"), edit(4, WHOLE)]) == [0.5, 3, 2]
    assert token_delays(DELTAS, [post(0.5, "One"), edit(4, "One tw")]) == [0.5]
    assert token_delays(DELTAS, []) == []


def test_a_delta_of_white_space_has_no_delay() -> None:
    deltas = [Delta(0, "One"), Delta(1, " \n"), Delta(2, "two")]

    assert freshness(deltas, [post(0, "One"), edit(6, "One two")]).mean == 2


@pytest.mark.parametrize(
    ("deltas", "moments"),
    [
        (DELTAS, []),
        (DELTAS, [Moment(0, "sign", "", "One")]),
        (DELTAS, [post(0, "")]),
        (DELTAS, [post(0, "Sorry, there is no answer.")]),
        ([], [post(0, "One")]),
    ],
)
def test_without_text_of_the_model_there_are_no_figures(
    deltas: list[Delta], moments: list[Moment]
) -> None:
    with pytest.raises(ValueError, match="no text of the model"):
        freshness(deltas, moments)
