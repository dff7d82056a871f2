"""How long a worker waits, and how often it tries."""

from __future__ import annotations

from dataclasses import dataclass

from bot.concurrency import Backoff

_RETRY = Backoff(first=1.0, longest=60.0)
_FINISH_RETRY = Backoff(first=0.2, longest=2.0)
_REPAIR_RETRY = Backoff(first=0.5, longest=60.0)


@dataclass(frozen=True, slots=True)
class WorkPolicy:
    """The pauses of a worker, in seconds, and its limits; `…_leases` are multiples of a lease."""

    longest_read: float = 1.0  # of the queue: a stop of the process is seen after that
    store_pause: float = 0.5  # before the store is asked again
    max_attempts: int = 10  # at an answer; and as many at an apology
    retry: Backoff = _RETRY  # of a failed attempt
    finish_retry: Backoff = _FINISH_RETRY  # of storing an end while the store is away
    post_grace: float = 2.0  # for a post under way when the lease is lost
    release_grace: float = 2.0  # at shutdown, to release all turns that did not end
    repairs_at_once: int = 16
    # Attempts to take the buttons of an older reply away, and the pause before each further one.
    # After the last write of another reply, its bucket is free for that in some seconds.
    button_attempts: int = 8
    button_pause: float = 2.0
    buttons_at_once: int = 100  # replies that wait for it; further ones keep their buttons
    repair_retry: Backoff = _REPAIR_RETRY  # of a write that repairs a reply
    repair_leases: float = 12  # after which another worker repairs the turn
    # After which a worker has saved the message that it posted, even if the store was away.
    save_leases: float = 6
