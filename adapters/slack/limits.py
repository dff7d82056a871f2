"""Timings and limits of the Slack adapter."""

from __future__ import annotations

from dataclasses import dataclass

from bot.concurrency import Backoff


@dataclass(frozen=True, slots=True)
class Limits:
    """The production values; tests hand in others. All times are in seconds."""

    # What is tried of the limits for each workspace that Slack documents; a 429 lowers it again.
    factor: float = 1.0
    refusals_remembered: float = 3600.0  # an operator may have added the scope by then
    job_grace: float = 3.0  # for background jobs and events in progress at shutdown

    # Events. Slack waits 3 s for an acknowledgement, and for the answer to a command.
    name_timeout: float = 0.7  # for the name look-ups of an event or a prompt
    language_timeout: float = 0.3  # before all that a command looks up
    lookup_timeout: float = 1.4  # for what a command looks up: rights, or messages
    notices_in_flight: int = 100  # further ones are dropped
    command_answered_within: float = 2.6
    view_read_within: float = 2.0  # opening it takes time, too

    # Socket Mode
    ping_interval: float = 5.0  # a connection that does not answer in half of it is closed
    close_timeout: float = 1.0
    # A reconnect after the first short-lived connection is immediate; these are the later pauses.
    reconnect: Backoff = Backoff(first=1.0, longest=30.0)
    stable_after: float = 60.0  # a connection that lasts this long resets the back-off
    sign_after: float = 1.0  # after this time a waiting turn shows a status line
    # In a DM, where the answer itself begins with a sign of life after two seconds if it may.
    unseen_after: float = 3.0

    # Outages
    heartbeat_interval: float = 1.0
    outage_after: int = 5  # seconds without a heartbeat
    claim_seconds: int = 30  # after its last heartbeat
    unstored_events: int = 100  # kept in memory; Slack retries the others
    # Each method allows 50 requests a minute (docs: Tier 3); the other half is for all other
    # reading.
    catch_up_requests: int = 25
    catch_up_age: float = 300.0  # older questions are not answered any more
    catch_up_timeout: float = 300.0

    # A stream expires about five minutes after its start, even while it grows (field). It is ended
    # before that, and its message is updated from then on.
    stream_seconds: float = 240.0
