"""The figures of a reply are right for examples, and keep to their bounds for anything."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulators.timeline import Delta, Freshness, Moment, freshness

DELTAS = [Delta(0.0, "One "), Delta(1.0, "two "), Delta(2.0, "last.")]


def post(at: float, text: str, *, message: str = "1") -> Moment:
    return Moment(at, "post", message, text)


def edit(at: float, text: str, *, message: str = "1") -> Moment:
    return Moment(at, "edit", message, text)


class TestExamples:
    def test_a_reply_that_shows_each_delta_at_once_has_no_delay(self) -> None:
        moments = [post(0, "One"), edit(1, "One two"), edit(2, "One two last.")]

        assert freshness(DELTAS, moments) == Freshness(0, 0, 1, 0, True)

    def test_delays_are_counted_for_each_delta(self) -> None:
        moments = [post(0.5, "One"), edit(4, "One two last.")]

        found = freshness(DELTAS, moments)

        # 0.5, 3 and 2 seconds.
        assert found == Freshness(first=0.5, mean=5.5 / 3, gap=3.5, last=2, whole=True)

    def test_a_delta_counts_when_its_last_character_is_there(self) -> None:
        moments = [post(1, "O"), edit(3, "One"), edit(4, "One two last.")]

        assert freshness(DELTAS, moments).mean == pytest.approx((3 + 3 + 2) / 3)

    def test_a_reply_that_is_not_whole_has_no_last(self) -> None:
        found = freshness(DELTAS, [post(0, "One"), edit(2, "One tw")])

        assert (found.last, found.whole) == (None, False)
        # Of the deltas that did not come to their ends nothing is known.
        assert found.mean == 0

    def test_without_a_whole_delta_the_mean_is_the_first(self) -> None:
        found = freshness(DELTAS, [post(0.5, "O")])

        assert found == Freshness(first=0.5, mean=0.5, gap=0, last=None, whole=False)

    def test_pages_are_joined_in_the_order_of_posting(self) -> None:
        moments = [
            post(1, "One", message="9"),
            post(2, "last.", message="5"),
            edit(3, "One two", message="9"),
        ]

        found = freshness(DELTAS, moments)

        # "last." counts only once "two" stands before it.
        assert (found.gap, found.last, found.whole) == (2, 1, True)

    def test_white_space_does_not_count(self) -> None:
        moments = [post(1, "One\n\ntwo"), post(2, "last.\n", message="2")]

        assert freshness(DELTAS, moments).whole

    def test_a_delta_of_white_space_has_no_delay(self) -> None:
        deltas = [Delta(0, "One"), Delta(1, " \n"), Delta(2, "two")]

        assert freshness(deltas, [post(0, "One"), edit(6, "One two")]).mean == 2

    def test_typing_and_statuses_are_no_text(self) -> None:
        moments = [Moment(0.1, "sign", "", "One is thinking"), post(1, "One two last.")]

        assert freshness(DELTAS, moments).first == 1

    @pytest.mark.parametrize(
        "end",
        [
            edit(3, "One two last.\n\n(Stopped.)"),
            edit(3, "One two"),
            post(3, "and more", message="2"),
            Moment(3, "delete", "1", ""),
        ],
        ids=["a word behind", "an old text", "another page", "a deletion"],
    )
    def test_a_reply_is_whole_only_if_it_is_so_in_the_end(self, end: Moment) -> None:
        found = freshness(DELTAS, [post(2, "One two last."), end])

        assert found == Freshness(first=2, mean=1, gap=0, last=None, whole=False)

    def test_last_is_when_the_text_came_to_stand_for_good(self) -> None:
        moments = [post(2, "One two last."), edit(3, "One"), edit(5, "One two last.")]

        assert freshness(DELTAS, [*moments, edit(6, "One two  last.")]).last == 3

    def test_text_that_goes_away_is_no_growth(self) -> None:
        moments = [
            post(0, "One two"),
            Moment(1, "delete", "1", ""),
            post(3, "One", message="2"),
            edit(5, "One two last.", message="2"),
        ]

        assert freshness(DELTAS, moments).gap == 5

    @pytest.mark.parametrize(
        "moments",
        [
            [],
            [Moment(0, "sign", "", "One")],
            [post(0, "")],
            [post(0, "Sorry, there is no answer.")],
        ],
    )
    def test_without_text_of_the_model_there_are_no_figures(self, moments: list[Moment]) -> None:
        with pytest.raises(ValueError, match="no text of the model"):
            freshness(DELTAS, moments)

    def test_a_silent_model_has_no_figures(self) -> None:
        with pytest.raises(ValueError, match="no text of the model"):
            freshness([], [post(0, "One")])


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as a bot writes it: `looks` are when it looked, and what it had then been told."""

    deltas: list[Delta]
    looks: list[tuple[float, str]]
    page: int

    def moments(self, looks: list[tuple[float, str]] | None = None) -> list[Moment]:
        """Return what a person saw: pages of so many characters, of which only changes show."""
        shown: dict[str, str] = {}
        moments: list[Moment] = []
        for at, text in self.looks if looks is None else looks:
            for start in range(0, len(text), self.page):
                message, page = f"m{start}", text[start : start + self.page].strip()
                if page and shown.get(message) != page:
                    what = post if message not in shown else edit
                    moments.append(what(at, page, message=message))
                    shown[message] = page
        return moments


times = st.floats(min_value=0, max_value=5)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    words = draw(st.lists(st.text("abc ", min_size=1, max_size=6), min_size=1, max_size=12))
    at, deltas = 0.0, []
    for word in [*words, "end"]:
        at += draw(times)
        deltas.append(Delta(at, word))
    looks: list[tuple[float, str]] = []
    for place in sorted(draw(st.sets(st.integers(0, len(deltas) - 1))) | {len(deltas) - 1}):
        late = draw(times)
        said = "".join(delta.text for delta in deltas[: place + 1])
        looks.append((max(deltas[place].at + late, looks[-1][0] if looks else 0.0), said))
    return Reply(deltas, looks, draw(st.integers(1, 20)))


class TestAnything:
    @given(replies())
    def test_figures_keep_to_their_bounds(self, reply: Reply) -> None:
        moments = reply.moments()
        found = freshness(reply.deltas, moments)
        # The mean of floats may be rounded up.
        longest = (moments[-1].at - reply.deltas[0].at) * (1 + 1e-9)

        assert found.whole
        assert found.last is not None
        assert 0 <= found.last <= longest
        assert 0 <= found.first <= longest
        assert 0 <= found.mean <= longest
        assert 0 <= found.gap <= longest

    @given(replies(), times)
    def test_what_is_shown_later_is_as_much_later(self, reply: Reply, seconds: float) -> None:
        soon = freshness(reply.deltas, reply.moments())
        late = freshness(
            reply.deltas, reply.moments([(at + seconds, text) for at, text in reply.looks])
        )

        assert soon.last is not None
        assert late.first == pytest.approx(soon.first + seconds)
        assert late.mean == pytest.approx(soon.mean + seconds)
        assert late.last == pytest.approx(soon.last + seconds)
        assert late.gap == pytest.approx(soon.gap)

    @given(replies(), st.data())
    def test_an_edit_less_is_never_fresher(self, reply: Reply, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(reply.looks) - 1))
        fewer = [*reply.looks[:place], *reply.looks[place + 1 :]] or reply.looks
        if fewer[-1] != reply.looks[-1]:
            fewer = [*fewer[:-1], reply.looks[-1]]
        all_of_it = freshness(reply.deltas, reply.moments())
        less = freshness(reply.deltas, reply.moments(fewer))

        assert less.first >= all_of_it.first
        assert less.mean >= all_of_it.mean - 1e-9
        assert less.last == all_of_it.last

    @given(replies())
    def test_the_size_of_pages_changes_nothing(self, reply: Reply) -> None:
        one_page = Reply(reply.deltas, reply.looks, 1_000)

        assert freshness(reply.deltas, reply.moments()) == freshness(
            reply.deltas, one_page.moments()
        )

    @given(replies())
    def test_signs_and_repetitions_change_nothing(self, reply: Reply) -> None:
        moments = reply.moments()
        noise = [
            each
            for moment in moments
            for each in (moment, moment, Moment(moment.at, "sign", "", "is typing"))
        ]

        assert freshness(reply.deltas, noise) == freshness(reply.deltas, moments)

    @given(replies(), st.integers(0, 30))
    def test_a_reply_cut_short_is_not_whole(self, reply: Reply, length: int) -> None:
        said = "".join(delta.text for delta in reply.deltas)
        visible = said[: min(length, len(said) - 1)]
        moments = reply.moments([(reply.deltas[-1].at, visible)])

        if visible.strip():
            assert not freshness(reply.deltas, moments).whole
        else:
            with pytest.raises(ValueError, match="no text"):
                freshness(reply.deltas, moments)
