"""The messages of a reply: what is to be written next, and where."""

from __future__ import annotations

from bot.domain import Page, Shown
from bot.reply.draft import PENDING, Screen


def growing(number: int, text: str) -> Page:
    return Page(number, text, final=False, said=text)


def final(number: int, text: str, *, last: bool = False) -> Page:
    return Page(number, text, final=True, last=last)


def test_a_page_without_a_message_is_posted() -> None:
    screen = Screen(Shown())

    page = screen.next_write([growing(0, "One")])

    assert page
    assert screen.needs_post(page)
    screen.note_posted(page, "m1")
    assert screen.next_write([growing(0, "One")]) is None
    assert (screen.message_ids, screen.answer) == (("m1",), {0: "One"})


def test_a_message_of_an_earlier_attempt_may_show_anything() -> None:
    screen = Screen(Shown(("m1",)))

    page = screen.next_write([growing(0, "One")])

    assert page
    assert not screen.needs_post(page)
    assert screen.answer == {}


def test_a_message_whose_write_was_not_confirmed_is_written_again() -> None:
    screen, page = Screen(Shown(("m1",))), growing(0, "One")
    screen.note_edited(page)

    screen.messages[0].page = None

    assert screen.next_write([page]) == page


def test_a_page_whose_message_is_read_only_is_posted_below_and_so_are_those_behind_it() -> None:
    screen = Screen(Shown(("m1", "m2", "m3")))
    pages = [final(number, "words") for number in range(3)]
    for page in pages:
        screen.note_edited(page)

    screen.messages[1].is_read_only = True
    screen.note_posted(pages[1], "m4")

    assert screen.message_ids == ("m1", "m4", "m3")
    assert [screen.needs_post(page) for page in pages] == [False, False, True]


def test_a_read_only_message_that_is_not_needed_gets_no_successor() -> None:
    screen, unneeded = Screen(Shown(("m1", "m2"))), final(1, "")

    screen.messages[1].is_read_only = True

    assert not screen.needs_post(unneeded)


def test_pages_of_the_previous_answer_make_room_once_the_new_one_has_begun() -> None:
    screen = Screen(Shown(("m1", "m2")))
    pages = [growing(0, "New"), final(1, PENDING)]
    first = screen.next_write(pages)
    screen.note_edited(pages[0])

    second = screen.next_write([growing(0, "New words"), final(1, PENDING)])

    assert (first, second) == (pages[0], pages[1])


def test_a_message_that_was_taken_away_stands_no_more() -> None:
    screen = Screen(Shown(("m1", "m2")))

    screen.note_edited(final(1, ""))

    assert (screen.remaining, screen.message_ids) == (("m1",), ("m1", "m2"))


def test_a_deleted_message_is_not_closed() -> None:
    screen = Screen(Shown(("m1", "m2")))
    screen.messages[0].is_deleted = True

    pages = screen.unclosed([final(0, "One"), final(1, "Two", last=True)])

    assert pages == [final(1, "Two")]
