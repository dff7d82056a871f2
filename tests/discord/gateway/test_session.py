"""Which session a shard resumes and may save."""

from __future__ import annotations

from adapters.discord.gateway.session import Lookup, Session, SessionState

OWN, FORMER = Session("own", 3, "wss://own"), Session("former", 7, "wss://former")


def test_the_store_is_asked_again_until_a_session_has_begun() -> None:
    state = SessionState().found(None)

    begun = state.begun(OWN)

    assert (state.lookup, state.is_first) == (Lookup.NEEDED, True)
    assert (begun.lookup, begun.session, begun.may_be_saved) == (Lookup.DONE, OWN, True)


def test_a_session_that_begins_while_the_store_is_away_is_not_saved_before_it_answers() -> None:
    state = SessionState(Lookup.FAILED).begun(OWN)

    answered = state.found(None)

    assert not state.may_be_saved
    assert (answered.lookup, answered.session, answered.may_be_saved) == (Lookup.DONE, OWN, True)


def test_a_former_session_takes_the_place_of_an_own_one() -> None:
    state = SessionState(Lookup.FAILED).begun(OWN).found(FORMER)

    switched = state.switched()

    assert not state.may_be_saved
    assert (switched.session, switched.earlier, switched.may_be_saved) == (FORMER, None, True)


def test_a_connection_that_ends_early_keeps_the_session_it_had() -> None:
    state = SessionState().begun(OWN)

    assert state.disconnected(None).session == OWN
    assert state.disconnected(FORMER).session == FORMER
    assert state.ended().session is None
    assert not state.ended().is_first


def test_an_address_that_fails_is_left_for_the_first_one() -> None:
    state = SessionState().begun(OWN)

    assert state.at_first_address().session == Session("own", 3, "")
    assert SessionState().at_first_address().session is None


def test_the_id_of_a_session_is_not_shown() -> None:
    assert "own" not in repr(Session("own", 3, ""))
