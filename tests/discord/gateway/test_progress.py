"""What was heard of the gateway is told again until it is dealt with."""

from __future__ import annotations

import tracemalloc

from adapters.discord.gateway.progress import Progress, held


def test_a_journal_waits_for_the_first_event_that_is_not_dealt_with() -> None:
    journal = Progress()
    releases = []
    for seq in (2, 3, 5):
        with journal.heard(seq, 10 * seq) as release:
            releases.append(held())
        release()

    releases[1]()
    between = journal.dealt_with(7), journal.newest
    releases[0]()

    assert between == (1, 0)
    assert (journal.dealt_with(7), journal.newest) == (4, 30)


def test_a_journal_hears_of_no_message_before_a_new_sessions_beginning_is_dealt_with() -> None:
    journal = Progress()
    with journal.heard(40, 400) as release:
        pending = held()
    release()

    journal.new_session()
    with journal.heard(1) as begun:
        pass
    with journal.heard(2, 500) as done:
        pass
    done()
    pending()
    between = journal.dealt_with(2), journal.newest
    begun()

    assert between == (0, 0)
    assert (journal.dealt_with(2), journal.newest) == (2, 500)


def test_a_journal_does_not_grow_while_one_event_waits() -> None:
    journal = Progress()
    with journal.heard(1, 10) as release:
        pending = held()
    release()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    for seq in range(2, 10_000):
        with journal.heard(seq, 10 * seq) as done:
            pass
        done()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    between = journal.dealt_with(9_999), journal.newest
    pending()

    assert grown < 100_000
    assert between == (0, 0)
    assert (journal.dealt_with(9_999), journal.newest) == (9_999, 99_990)


def test_a_journal_forgets_no_message_for_what_is_none_or_is_older() -> None:
    journal = Progress()
    with journal.heard(1) as release:
        pending = held()
    release()
    for seq, message in ((2, 500), (3, 300), (4, 0)):
        with journal.heard(seq, message) as done:
            pass
        done()

    pending()
    between = journal.newest
    with journal.heard(5, 400) as done:
        pass
    done()

    assert (between, journal.newest) == (500, 500)


def test_an_event_is_released_once_however_often_it_is_told() -> None:
    journal = Progress()
    with journal.heard(2) as release:
        first, second = held(), held()

    release()
    first()
    first()

    assert journal.dealt_with(2) == 1
    second()
    assert journal.dealt_with(2) == 2
