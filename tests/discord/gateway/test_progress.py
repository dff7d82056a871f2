"""Events of the gateway count until they are handled."""

from __future__ import annotations

import tracemalloc

from adapters.discord.gateway.inbox import Progress


def test_progress_waits_for_the_first_event_that_is_held() -> None:
    progress, releases = Progress(), []
    for seq in (2, 3, 5):
        with progress.handling(seq, 10 * seq) as event:
            releases.append(event.hold())

    releases[1]()
    between = progress.handled(7), progress.newest
    releases[0]()

    assert between == (1, 0)
    assert (progress.handled(7), progress.newest) == (4, 30)


def test_an_event_is_held_while_it_is_handled() -> None:
    progress = Progress()

    with progress.handling(2, 20):
        during = progress.handled(2), progress.newest

    assert during == (1, 0)
    assert (progress.handled(2), progress.newest) == (2, 20)


def test_no_message_counts_before_the_beginning_of_a_new_session_is_handled() -> None:
    progress = Progress()
    with progress.handling(40, 400) as event:
        release_former = event.hold()

    progress.new_session()
    with progress.handling(1) as event:
        release_beginning = event.hold()
    with progress.handling(2, 500):
        pass
    release_former()
    between = progress.handled(2), progress.newest
    release_beginning()

    assert between == (0, 0)
    assert (progress.handled(2), progress.newest) == (2, 500)


def test_progress_does_not_grow_while_one_event_is_held() -> None:
    progress = Progress()
    with progress.handling(1, 10) as event:
        release = event.hold()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    for seq in range(2, 10_000):
        with progress.handling(seq, 10 * seq):
            pass
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    between = progress.handled(9_999), progress.newest
    release()

    assert grown < 100_000
    assert between == (0, 0)
    assert (progress.handled(9_999), progress.newest) == (9_999, 99_990)


def test_an_older_message_or_another_event_does_not_take_progress_back() -> None:
    progress = Progress()
    with progress.handling(1) as event:
        release = event.hold()
    for seq, message in ((2, 500), (3, 300), (4, 0)):
        with progress.handling(seq, message):
            pass

    release()
    between = progress.newest
    with progress.handling(5, 400):
        pass

    assert (between, progress.newest) == (500, 500)


def test_a_hold_is_released_once_however_often_it_is_called() -> None:
    progress = Progress()
    with progress.handling(2) as event:
        first, second = event.hold(), event.hold()

    first()
    first()
    between = progress.handled(2)
    second()

    assert (between, progress.handled(2)) == (1, 2)
