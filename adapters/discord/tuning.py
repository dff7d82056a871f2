"""Pauses and limits of the Discord adapter."""

from __future__ import annotations

from dataclasses import dataclass

from bot.concurrency import Backoff


@dataclass(frozen=True, slots=True)
class Tuning:
    """One value for a process; times are in seconds."""

    page_size: int = 100  # messages, the most of one request ("Get Channel Messages")

    # Replies.
    # Discord compares nonces of "the past few minutes" (its documentation, "Create Message").
    nonce_known_for: float = 60.0
    history_pages: int = 10  # pages of messages to read in one channel
    typing_every: float = 8.0  # Discord shows typing for ten seconds
    # For all replies in a channel, whose limit is about five calls in five seconds.
    typing_gap: float = 1.0
    sign_after: float = 1.0  # after this time a waiting turn shows typing, once
    # The longest wait for a new thread; then the reply is posted in the channel.
    thread_patience: float = 5.0
    # An interaction may be acknowledged for three seconds, and the reply may begin before, because
    # the turn is stored first. Each attempt counts for the webhook's bucket.
    deferral_pauses: tuple[float, ...] = (0.3, 0.9, 1.8)

    # Connections of the gateway.
    open_within: float = 60.0  # for the connection and its first frame, as in the library
    close_within: float = 5.0  # for Discord's close frame; discord.py 2.7.1 waits 30
    client_pause: float = 5.0  # before a new client replaces one that failed
    steady_after: float = 60.0  # a connection of this length resets the count of losses
    reconnect: Backoff = Backoff(1.0, 60.0)
    register_retry: Backoff = Backoff(5.0, 300.0)  # of the commands
    # Discord's documentation wants 1 to 5 seconds before a session begins after another ("Gateway",
    # "Resuming"), and 90 keep a day's sessions below the 1000 that it allows.
    start_pause: tuple[float, float] = (1.0, 5.0)
    longest_start_pause: float = 90.0
    calm_after: float = 600.0  # older starts of sessions do not count
    # Between sessions of shards that are equal modulo `max_concurrency` (Discord's documentation,
    # "Gateway", "Rate Limiting" under "Sharding").
    start_spacing: float = 5.1
    start_poll: float = 0.2  # between two checks whether this shard may begin

    # Saved sessions.
    save_every: float = 0.1
    renew_after: float = 20.0  # a quiet session is saved again, or it would expire
    last_save_within: float = 1.0

    # Events that wait for the store or for Discord.
    store_retry: Backoff = Backoff(0.5, 2.0)
    # A hundred failing channels cost seven requests a second.
    lookup_retry: Backoff = Backoff(0.5, 15.0)
    answer_within: float = 2.0  # of the three seconds that Discord waits for an answer
    # Younger interactions are not repeats, because Discord's own deadline is three seconds.
    fresh_for: float = 3.0
    remembered: int = 10_000  # channels and servers that were looked up

    # Catching up.
    answers_wanted_for: float = 300.0  # older questions are not answered
    catch_up_for: float = 300.0
    # Messages found within this time are admitted before new ones.
    catch_up_pass: float = 20.0
    catch_up_retry: Backoff = Backoff(2.0, 15.0)  # of a channel that cannot be read yet
    catch_up_at_once: int = 5  # requests
    catch_up_channels: int = 50
    # Three messages a second for five minutes. All channels together then need ten seconds of the
    # requests that Discord takes from a bot.
    catch_up_pages: int = 10
    # Messages of different channels may not arrive in the order of their ids.
    catch_up_overlap: float = 5.0
    # The gateway sends the servers after a session has begun.
    servers_within: float = 5.0
    # A server that is missing then has an outage, so it has no new messages.
    late_servers_within: float = 60.0
