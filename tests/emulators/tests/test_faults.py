"""What goes wrong on purpose goes wrong exactly as often as it was asked to."""

from __future__ import annotations

import pytest

from tests.emulators.faults import Fault, Faults


def struck(faults: Faults, *calls: str) -> list[int | None]:
    """Return the status with which each call goes wrong; None for those that go well."""
    found = [faults.strike(call) for call in calls]
    return [None if fault is None else fault.status for fault in found]


def test_without_faults_every_call_goes_well() -> None:
    assert struck(Faults(), "POST /a", "POST /a") == [None, None]


def test_a_fault_strikes_once_if_not_told_otherwise() -> None:
    faults = Faults()
    faults.add("POST /a", status=503)

    assert struck(faults, "POST /a", "POST /a") == [503, None]


def test_a_fault_strikes_so_often_after_so_many_good_calls() -> None:
    faults = Faults()
    faults.add("POST /a", status=503, times=2, after=2)

    assert struck(faults, *["POST /a"] * 5) == [None, None, 503, 503, None]


@pytest.mark.parametrize(
    ("pattern", "call", "strikes"),
    [
        ("chat.update", "chat.update", True),
        ("messages$", "POST /channels/1/messages", True),
        ("^messages", "POST /channels/1/messages", False),
        ("POST /channels/[0-9]+/messages", "POST /channels/12/messages", True),
        ("PATCH", "POST /channels/1/messages", False),
    ],
)
def test_a_call_is_found_by_a_regular_expression(pattern: str, call: str, strikes: bool) -> None:
    faults = Faults()
    faults.add(pattern)

    assert (faults.strike(call) is not None) is strikes


def test_calls_of_others_do_not_count() -> None:
    faults = Faults()
    faults.add("/a", status=503, after=1)

    assert struck(faults, "/b", "/b", "/a", "/b", "/a") == [None, None, None, None, 503]


def test_faults_of_one_call_strike_in_the_order_in_which_they_were_added() -> None:
    faults = Faults()
    faults.add("/a", status=500, times=2)
    faults.add("/a", status=429)

    assert struck(faults, *["/a"] * 4) == [500, 500, 429, None]


def test_a_fault_that_waits_counts_only_the_calls_that_went_well() -> None:
    faults = Faults()
    faults.add("/a", status=500, after=1)
    faults.add("/a", status=429)

    assert struck(faults, *["/a"] * 4) == [429, None, 500, None]


def test_faults_that_wait_for_the_same_calls_count_them_together() -> None:
    faults = Faults()
    faults.add("/a", status=500, after=1)
    faults.add("/a", status=429, after=2)

    assert struck(faults, *["/a"] * 4) == [None, 500, None, 429]


def test_a_fault_that_never_struck_was_asked_for_in_vain() -> None:
    faults = Faults()
    faults.add("/a", times=99)
    faults.add("/b", after=1)
    faults.strike("/a")
    faults.strike("/b")

    assert faults.in_vain() == ["/b"]


def test_healing_forgets_what_was_asked_for_in_vain() -> None:
    faults = Faults()
    faults.add("/a")
    faults.heal()

    assert faults.in_vain() == []


def test_healing_ends_all_faults() -> None:
    faults = Faults()
    faults.add("/a", times=9)
    faults.add("/b", times=9)
    faults.heal()

    assert struck(faults, "/a", "/b") == [None, None]


def test_a_fault_keeps_what_it_was_told() -> None:
    faults = Faults()
    faults.add(
        "/a",
        "late",
        status=429,
        body={"error": "no"},
        headers={"Via": "1.1 test"},
        retry_after=1.5,
        seconds=0.2,
        applied=True,
    )
    fault = faults.strike("/a")

    assert isinstance(fault, Fault)
    assert (fault.how, fault.status, fault.body) == ("late", 429, {"error": "no"})
    assert (fault.headers, fault.retry_after) == ({"Via": "1.1 test"}, 1.5)
    assert (fault.seconds, fault.applied) == (0.2, True)
