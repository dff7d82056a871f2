"""What a reply tells of its writes and of the delays of its text."""

from __future__ import annotations

from prometheus_client import REGISTRY

from bot.domain import EditBudget
from bot.errors import WriteDelayed, WriteFailed
from bot.reply.freshness import Freshness
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.replies import WORDS, make_reply


def sample(name: str, platform: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"parley_{name}", {"platform": platform, **labels}) or 0.0


def test_the_delay_of_each_token_counts_until_its_write() -> None:
    one = Freshness("counted", began_at=100.0)
    one.add_delta(101.0)
    pending = one.pending()
    one.add_delta(102.0)  # while the write is under way
    one.record_write(pending, 103.0)
    one.text_ended_at = 104.0
    one.record_write(one.pending(), 106.0)
    one.end(106.0)

    assert (one.writes, one.first_text_at) == (2, 103.0)
    # Two seconds for the first token, four for the second.
    assert sample("reply_token_delay_seconds_sum", "counted") == 3.0
    assert sample("reply_first_text_seconds_sum", "counted") == 3.0
    assert sample("reply_final_delay_seconds_sum", "counted") == 2.0


def test_a_failed_write_shows_nothing() -> None:
    one = Freshness("failing", began_at=0.0)
    one.add_delta(1.0)
    one.record_failure(WriteDelayed("wait", retry_after=1.0))
    one.record_write(one.pending(), 4.0)
    one.end(4.0)

    assert sample("reply_token_delay_seconds_sum", "failing") == 3.0


def test_a_reply_without_a_word_has_no_delays() -> None:
    one = Freshness("silent", began_at=0.0)
    one.record_write(one.pending(), 2.0)  # an apology
    one.text_ended_at = 1.0
    one.end(2.0)

    assert (one.writes, one.first_text_at) == (1, 0.0)
    assert sample("reply_token_delay_seconds_count", "silent") == 0
    assert sample("reply_final_delay_seconds_count", "silent") == 0


async def test_a_reply_counts_its_writes_by_their_result(store: Store) -> None:
    results = ("done", "limited", "failed")
    before = {it: sample("writes_total", "console", result=it) for it in results}
    errors = [None, WriteDelayed("wait", retry_after=0.01), WriteFailed("away"), None]
    surface = FakeSurface(edits=EditBudget("a", 100, 1.0), errors=errors)

    reply = make_reply(store, surface)
    await reply.stream(FakeModel(WORDS, pause=0.005).stream([]))

    seen = reply.freshness
    assert seen.limited == 1
    assert seen.writes == len(surface.states) >= 2
    after = {it: sample("writes_total", "console", result=it) - before[it] for it in results}
    assert after == {"done": seen.writes, "limited": 1, "failed": 1}
    assert seen.first_text_at > seen.began_at
