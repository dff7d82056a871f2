"""What a reply has to show: every page fits, and nothing of ours stays in the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.domain import Page, Shown, StepNote, StepNotes
from bot.errors import PlaceGone
from bot.reply.draft import (
    ANSWERED_BY,
    PENDING,
    STOPPED,
    STOPPED_ANEW,
    WAITING,
    Draft,
    Ending,
    is_needed,
    with_notice,
)
from bot.text.markdown import open_fence

LIMIT = 80
ENDINGS = [Ending("done"), Ending("stopped"), Ending("failed", "Sorry.")]
DELETED = Ending("stopped", is_deleted=True)
words = st.text(st.sampled_from("ab*`#|[]()\n -1é🙂"), max_size=60)


def make_draft(
    *, older: str = "", replaced: str = "", earlier: Shown | None = None, limit: int = LIMIT
) -> Draft:
    earlier = earlier or Shown(("m1",), older, older)
    return Draft(limit=limit, measure=len, earlier=earlier, previous_answer=replaced)


def ends_of(draft: Draft) -> tuple[str, str]:
    """Return all that stands there, and what of it is remembered."""
    shown = draft.shown([])
    return shown.text, shown.said


@pytest.mark.parametrize("limit", [2000, 60, 30])
def test_a_page_names_its_line_of_calls(limit: int) -> None:
    draft, line = make_draft(limit=limit), "(Steps: Searching the web: done.)"
    draft.note_steps(StepNotes((StepNote("c1", "Searching the web", "done"),)))
    draft.add("word " * 10)
    draft.end(Ending("done"))

    pages = draft.pages(0)
    assert len(pages) == {2000: 1, 60: 2, 30: 4}[limit]
    assert [page.steps for page in pages] == [line if line in it.text else "" for it in pages]
    assert any(page.steps for page in pages) is (limit > len(line))


@given(st.lists(st.tuples(words, st.booleans())), words, words, st.integers(0, 4))
def test_every_page_fits_while_it_grows_and_at_the_end(
    deltas: list[tuple[str, bool]], older: str, former: str, standing: int
) -> None:
    draft = make_draft(older=older, replaced=former)

    for delta, silent in deltas:
        draft.add(delta)
        draft.silent = silent
        pages = draft.pages(standing)
        assert all(page.text.strip() and len(page.text) <= LIMIT for page in pages)
        assert [page.number for page in pages] == sorted({page.number for page in pages})
        assert sum(not page.final for page in pages) <= 1
        assert not any(page.last for page in pages)

    draft.end(Ending("done"))
    final = draft.pages(standing)
    assert all(page.final and len(page.text) <= LIMIT for page in final)
    assert [page.last for page in final if page.text] == [False] * (
        sum(bool(page.text) for page in final) - 1
    ) + [True] * any(page.text for page in final)


@given(st.lists(words))
def test_no_sign_of_life_is_left_at_the_end(deltas: list[str]) -> None:
    silent, quick = make_draft(), make_draft()

    for delta in deltas:
        silent.add(delta)
        silent.silent = True
        silent.pages(0)
        quick.add(delta)
    for draft in (silent, quick):
        draft.end(Ending("done"))

    assert silent.pages(0) == quick.pages(0)
    assert silent.shown([]) == quick.shown([])


def test_pages_of_a_former_answer_wait_for_the_new_one() -> None:
    draft = make_draft(replaced="A former answer. " * 10)

    before = draft.pages(3)
    draft.add("New")
    growing = draft.pages(3)
    draft.end(Ending("done"))

    waiting = [Page(number, PENDING, final=True) for number in (1, 2)]
    assert (before, growing) == ([], [Page(0, "New", final=False, said="New"), *waiting])
    for pages in (growing, draft.pages(3)):
        assert [is_needed(page) for page in pages] == [True, False, False]


def test_a_sign_of_life_is_no_word_of_the_answer() -> None:
    draft = make_draft()

    draft.silent = True
    (page,) = draft.pages(0)
    draft.end(Ending("stopped"))

    assert (page.text, page.said) == (WAITING, "")
    assert ends_of(draft) == (STOPPED, "")


def test_a_blank_delta_is_no_word_of_a_new_answer() -> None:
    draft = make_draft(replaced="The former.")

    draft.add("\n")
    draft.end(Ending("stopped"))

    assert draft.shown([]).text == f"The former.\n\n{STOPPED_ANEW}"
    assert draft.shown([]).said == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Words", "Words\n\n(Note.)"),
        ("", "(Note.)"),
        ("```py\nx = 1", "```py\nx = 1\n```\n\n(Note.)"),
        ("```py\nx = 1\n``", "```py\nx = 1\n```\n\n(Note.)"),
        ("```py\nx = 1\n```", "```py\nx = 1\n```\n\n(Note.)"),
        ("Words\n```py", "Words\n```py\n```\n(Note.)"),
    ],
)
def test_a_notice_stands_below_code_and_not_in_it(text: str, shown: str) -> None:
    assert with_notice(text, "(Note.)") == shown


@given(words)
def test_no_text_takes_a_notice_into_its_code(text: str) -> None:
    shown = with_notice(text, "(Note.)")

    assert shown.startswith(text) or not text.strip()
    assert open_fence(shown.removesuffix("(Note.)")) is None


@given(words, words, st.integers(0, 1))
def test_the_last_words_of_a_page_make_room_for_an_apology(
    first: str, second: str, last: int
) -> None:
    draft, apology = make_draft(), PlaceGone.apology

    closed, _ = draft.refuse(apology, visible={0: first, 1: second}, last=last)

    assert len(closed.text) <= LIMIT
    assert closed.text.endswith(apology)
    assert (first, second)[1 - last].strip() in draft.shown([]).said


@given(
    st.lists(words),
    words,
    words,
    st.integers(0, 9),
    # None: the platform refuses it.
    st.sampled_from([*ENDINGS, Ending("done", "(Cut.)"), DELETED, None]),
)
@example(["\n"], "", "", 0, Ending("stopped"))
def test_what_is_shown_begins_with_what_was_said(
    deltas: list[str], older: str, former: str, unread: int, end: Ending | None
) -> None:
    draft = make_draft(older=older, replaced=former)
    if unread:
        draft.left_out_by_model = unread
    for delta in deltas:
        draft.add(delta)
        grows = draft.shown(["m1"])
        assert (grows.text, grows.outcome) == (grows.said, "")

    if end:
        draft.end(end)
    else:
        draft.refuse("Sorry.", visible=dict(enumerate(deltas)), last=len(deltas) - 1)
    shown = draft.shown(["m1"])

    assert shown.outcome
    assert shown.text.startswith(shown.said)
    assert shown.said.strip() or not shown.said


@given(st.lists(words), words, st.sampled_from(ENDINGS))
def test_an_end_that_was_left_is_the_same_end(deltas: list[str], former: str, end: Ending) -> None:
    first = make_draft(replaced=former)
    first.left_out_by_model = 5
    for delta in deltas:
        first.add(delta)
    first.end(end)
    left = first.shown(["m1", "m2"])

    again = make_draft(earlier=left, replaced=former)

    assert again.pages(2) == first.pages(2)
    assert again.shown(["m1", "m2"]) == left


def test_what_closes_a_code_block_above_a_notice_was_not_said() -> None:
    draft = make_draft()

    draft.add("```py\nx = 1")
    draft.end(Ending("stopped"))

    assert draft.shown([]).text == f"```py\nx = 1\n```\n\n{STOPPED}"
    assert draft.shown([]).said == "```py\nx = 1"


def test_the_work_for_a_delta_does_not_grow_with_the_reply() -> None:
    measured = 0

    def measure(text: str) -> int:
        nonlocal measured
        measured += len(text)
        return len(text)

    draft = Draft(limit=2000, measure=measure, earlier=Shown())
    looks = 0
    for number in range(8000):
        draft.add(f"**word** {number}, `x`. " + "\n\n" * (number % 40 == 0))
        if number % 16 == 0:
            looks += 1
            draft.pages(0)

    # Each look measures a few pages; all of them are 180,000 characters at the end.
    assert measured < looks * 20_000


class Joined(str):
    """A delta that counts what is copied to have it behind a text."""

    copied = 0

    def __radd__(self, text: str) -> str:
        Joined.copied += len(text)
        return text + str(self)


def test_a_delta_is_added_without_a_copy_of_the_text() -> None:
    draft = make_draft(limit=2000)

    for _ in range(1000):
        draft.add(Joined("x"))

    assert draft.shown([]).said == 1000 * "x"
    assert Joined.copied == 0


@pytest.mark.parametrize("gap", [" " * 3000, "\n" * 3000, "\u3000" * 3000])
def test_last_words_behind_much_white_space_make_room(gap: str) -> None:
    draft = make_draft(limit=4000)

    # Where each space is tried with each, this takes hours.
    closed, _ = draft.refuse(PlaceGone.apology, visible={0: f"word{gap}{'x' * 990}"}, last=0)

    assert closed.text.startswith("word")
    assert len(closed.text) <= 4000


def test_what_was_said_stays_until_a_new_start_has_more() -> None:
    draft = make_draft()

    draft.add("One two")
    draft.start("")
    draft.add("Uno")
    assert (draft.pages(1), draft.shown([]).text) == ([], "One two")
    draft.add(" dos tres")

    assert [page.text for page in draft.pages(1)] == ["Uno dos tres"]
    draft.end(Ending("done"))
    assert ends_of(draft) == ("Uno dos tres", "Uno dos tres")


@pytest.mark.parametrize(
    ("older", "longest"), [("", "One two"), ("One two three four", "One two three four")]
)
@pytest.mark.parametrize(
    ("ending", "notice"), list(zip(ENDINGS, ("", STOPPED, "Sorry."), strict=True))
)
def test_a_new_start_that_is_shorter_replaces_the_longest_text_only_at_a_whole_end(
    older: str, longest: str, ending: Ending, notice: str
) -> None:
    draft = make_draft(older=older)

    draft.add("One two")
    draft.start("")
    draft.add("Uno")
    assert (draft.pages(1), draft.shown([]).text) == ([], longest)
    draft.end(ending)

    said = longest if notice else "Uno"
    assert ends_of(draft) == (with_notice(said, notice), said)


def test_an_answer_says_which_other_model_gave_it() -> None:
    draft = make_draft()

    draft.start("org/other_model")
    draft.add("Uno")
    draft.end(Ending("done", "(Cut.)"))

    by = ANSWERED_BY.format(model="org/other_model")
    assert draft.shown([]).said == "Uno"
    assert draft.shown([]).text == f"Uno\n\n{by}\n\n(Cut.)"


@pytest.mark.parametrize("first", ["Hi \ud83d", "\ud83d"])
def test_half_a_character_is_joined_with_the_other(first: str) -> None:
    draft = make_draft()

    draft.add(first)
    draft.add("\ude00!")

    assert draft.shown([]).said == f"{first[:-1]}\U0001f600!"


def test_half_a_character_without_the_other_is_replaced() -> None:
    draft = make_draft()

    draft.add("Half of it\ud83d")
    draft.start("")
    draft.add("\ud83d\ud83d \ude00Whole\ud83d")
    draft.end(Ending("done"))

    assert ends_of(draft)[1] == "\ufffd\ufffd \ufffdWhole\ufffd"


CODE = "```python\n" + "print('a line of code')\n" * 12 + "```"


def files_of(draft: Draft) -> list[list[str]]:
    """Return the names of the files of each page."""
    return [[one.name for one in page.attachments] for page in draft.pages(0)]


def test_the_last_page_of_an_ended_answer_has_its_files() -> None:
    draft = make_draft()
    draft.add(f"Here:\n\n{CODE}\n\nAsk again.")
    growing = files_of(draft)
    draft.end(Ending("done"))

    *others, last = files_of(draft)
    again = Draft(limit=LIMIT, measure=len, earlier=draft.shown(["m1"]))

    assert not any(growing)
    assert not any(others)
    assert last == ["answer.py"]
    assert again.pages(0) == draft.pages(0)


def test_files_are_the_same_whatever_the_buttons_are() -> None:
    draft = make_draft()
    draft.add(CODE)
    draft.end(Ending("done", "Too long."))
    older = replace(draft.shown(["m1"]), end="older")

    superseded = Draft(limit=LIMIT, measure=len, earlier=older)

    assert superseded.pages(0)[-1].attachments == draft.pages(0)[-1].attachments != ()


def test_code_that_was_cut_is_no_file() -> None:
    draft = make_draft()
    draft.add(CODE.removesuffix("```"))
    draft.end(Ending("done", "Too long."))

    assert not any(files_of(draft))


def test_an_earlier_answer_comes_back_with_its_files() -> None:
    draft = make_draft(replaced=CODE)
    draft.end(Ending("failed", "Sorry."))

    assert files_of(draft)[-1] == ["answer.py"]
