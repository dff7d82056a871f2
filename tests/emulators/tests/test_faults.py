"""What goes wrong on purpose goes wrong exactly as often as it was asked to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.emulators.faults import Faults


def struck(faults: Faults, *calls: str) -> list[int | None]:
    """Return the status with which each call goes wrong; None for those that go well."""
    found = [faults.strike(call) for call in calls]
    return [None if fault is None else fault.status for fault in found]


@pytest.mark.parametrize(
    ("asked", "calls", "found"),
    [
        ([], "/a /a", [None, None]),
        ([("/a", {"status": 503})], "/a /a", [503, None]),
        (
            [("/a", {"status": 503, "times": 2, "after": 2})],
            "/a /a /a /a /a",
            [None, None, 503, 503, None],
        ),
        # Calls of others do not count.
        ([("/a", {"status": 503, "after": 1})], "/b /b /a /b /a", [None, None, None, None, 503]),
        # In the order in which they were asked for.
        ([("/a", {"times": 2}), ("/a", {"status": 429})], "/a /a /a /a", [500, 500, 429, None]),
        # One that waits counts the calls that went well, together with others.
        ([("/a", {"after": 1}), ("/a", {"status": 429})], "/a /a /a /a", [429, None, 500, None]),
        (
            [("/a", {"after": 1}), ("/a", {"status": 429, "after": 2})],
            "/a /a /a /a",
            [None, 500, None, 429],
        ),
        # A regular expression, found anywhere in the call.
        ([("a$", {})], "/a/messages /a", [None, 500]),
        ([("^a", {})], "/a", [None]),
        ([("/[0-9]+/m", {})], "/a/m /12/m", [None, 500]),
    ],
)
def test_faults_strike_as_often_and_as_late_as_asked(
    asked: list[tuple[str, dict[str, Any]]], calls: str, found: list[int | None]
) -> None:
    faults = Faults()
    for call, terms in asked:
        faults.add(call, **terms)

    assert struck(faults, *calls.split()) == found


def test_a_fault_that_never_struck_was_asked_for_in_vain_until_it_is_healed() -> None:
    faults = Faults()
    often = faults.add("/a", times=9)
    faults.add("/b", after=1)
    faults.strike("/a")
    faults.strike("/b")
    assert (faults.in_vain(), often.times) == (["/b"], 8)

    faults.heal()

    assert (faults.in_vain(), struck(faults, "/a", "/b")) == ([], [None, None])
