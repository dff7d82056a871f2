"""Forgetting a person: nothing of them is left, and all of others stays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest

from adapters import live
from bot.access.preferences import PreferenceStore
from bot.access.quotas import Quota
from bot.concurrency import running
from bot.domain import ContextMessage, Exchange, Person, Shown, ThreadKey, Turn
from bot.errors import BeingForgotten
from bot.store import Command, Script, Store
from bot.turns.forgetting import Forgetter, Forgetting, named
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import History
from bot.turns.script import QueueScript
from tests.support.at_work import take
from tests.support.stored import stored
from tests.turns.test_queue import make_queue

ANN, BOB = Person("u-4711", "Zoe Ann"), Person("u-0815", "Bob")
SHARED = ThreadKey("discord", "g1", "c1", "t1")
OWN = ThreadKey("discord", "g1", "c2", "t2")
WHO = named("person", "discord", ANN.id)
TRACES = (ANN.id, ANN.name, "zebra", "walrus", "yodel")
PLATFORM = "discord"


def turn(number: int, person: Person, key: ThreadKey = SHARED, text: str = "") -> Turn:
    text = text or ("zebra" if person is ANN else "lion")
    where = "#a, zebra, please"
    return Turn(f"discord:{number}", key, person, text, {}, 1000.0, where=where)


async def next_of(queue: TurnQueue) -> Taken:
    return await take(queue, PLATFORM)


def exchange_of(one: Turn, answer: str, *context: ContextMessage) -> Exchange:
    return Exchange(one.id, one.person, one.asked_at, one.text, answer, None, context)


async def answered(
    queue: TurnQueue, one: Turn, answer: str, *context: ContextMessage, outcome: str = "done"
) -> None:
    await queue.admit(one, quota=Quota(10_000), estimate=10)
    taken = await next_of(queue)
    if context:
        await queue.leases.save_context(taken, None, context)
    shown = Shown((f"m{one.id[8:]}",), answer, answer, outcome=outcome)  # type: ignore[arg-type]
    ended = exchange_of(one, answer, *context) if outcome == "done" else None
    await queue.leases.finish(taken, shown, ended)


def said_by(person: Person, text: str, number: int) -> ContextMessage:
    return ContextMessage(f"discord:{number}", person, text)


async def talk(store: Store) -> TurnQueue:
    """Let both ask in one thread, quote each other, rate, choose, and fail."""
    queue, history = make_queue(store), History(store=store, keep_seconds=60)
    await answered(queue, turn(1, ANN), "walrus")
    heard = said_by(ANN, 'yodel "loudly" \\', 91), said_by(BOB, "hum", 92)
    await answered(queue, turn(2, BOB), "penguin", *heard)
    await answered(queue, turn(3, BOB), "owl", outcome="failed")
    await answered(queue, turn(4, ANN, OWN), "walrus")
    await answered(queue, turn(5, ANN, OWN), "walrus", outcome="failed")
    await queue.changes.rate("discord:2", person_id=ANN.id, rating="good")
    await queue.changes.rate("discord:2", person_id=BOB.id, rating="good")
    await history.save_name(SHARED, ANN)
    await history.save_name(SHARED, BOB)
    await history.keep_message("discord:kept", said_by(ANN, "yodel", 93))
    await queue.note_speakers(SHARED, ANN.id, BOB.id, ours=True)
    await queue.claim_refusal_notice("discord", ANN)
    chosen = PreferenceStore(store=store)
    await chosen.change(OWN, "thread", {"persona": "yodel"}, by=ANN.id)
    return queue


async def begin(store: Store, forgetting: Forgetting) -> None:
    """Begin, as if nobody had been forgotten shortly before."""
    await forgetting.begin(WHO)
    await store.command("ZADD", store.key("forgetting"), "XX", 0, WHO)


async def work_due(forgetting: Forgetting) -> None:
    while who := await forgetting.claim():
        await forgetting.carry_out(who)


async def left_of_ann(store: Store) -> list[str]:
    found = [one for one in await stored(store) if any(word in one for word in TRACES)]
    return [f"{one.name} = {one.value}" for one in found]


async def of_bob(store: Store) -> list[str]:
    history = await History(store=store, keep_seconds=60).read(SHARED)
    return [
        text
        for one in history
        for text in (one.person.name, one.question, one.answer, *(it.text for it in one.context))
    ]


async def test_nothing_of_a_person_is_left_and_all_of_others_stays(store: Store) -> None:
    queue = await talk(store)
    assert await left_of_ann(store)

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert await queue.forgetting.is_done(WHO)
    assert await left_of_ann(store) == []
    assert await of_bob(store) == ["Bob", "lion", "penguin", "hum"]
    (rated,) = await queue.lookup.standings("discord:2", person_id=BOB.id)
    assert rated.rating == "good"
    failed = await queue.lookup.turn("discord:3")
    assert failed is not None
    assert (failed.text, failed.where) == ("lion", "")
    # Neither is the question answered again, nor read as context.
    assert not await queue.admit(turn(1, ANN))
    assert await queue.lookup.withheld(["discord:1", "discord:91", "discord:92"]) == {
        "discord:1",
        "discord:91",
    }


async def test_what_forgetting_leaves_expires(store: Store) -> None:
    queue, history = await talk(store), History(store=store, keep_seconds=60)
    await history.claim_truncation_notice(SHARED, "discord:1")

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    left = await stored(store)
    assert [one.name for one in left if one.expires_ms < 0] == []
    # The notice was shown, but the turn that had it is not named.
    assert [one.value for one in left if one.name.startswith("told:")] == ["-"]


async def test_what_was_used_today_still_counts(store: Store) -> None:
    queue = await talk(store)
    before = await queue.usage(SHARED, ANN, Quota())

    for _ in range(2):
        await begin(store, queue.forgetting)
        await work_due(queue.forgetting)

    assert before.questions > 0
    after = await queue.usage(SHARED, ANN, Quota())
    assert (after.questions, after.tokens) == (before.questions, before.tokens)
    await answered(queue, turn(6, ANN), "walrus")
    assert (await queue.usage(SHARED, ANN, Quota())).questions == before.questions + 1


async def test_who_was_just_forgotten_waits_before_the_next_time(store: Store) -> None:
    queue = await talk(store)
    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)
    (noted,) = [one.name for one in await stored(store) if one.name.startswith("forgotten:")]
    await store.command("PEXPIRE", store.key("") + noted, 60_000)

    await queue.forgetting.begin(WHO)

    assert await queue.forgetting.claim() is None
    assert not await queue.forgetting.is_done(WHO)
    with pytest.raises(BeingForgotten):
        await queue.admit(turn(6, ANN))
    # Nothing names the person but the job.
    assert [one.partition(" ")[0] for one in await left_of_ann(store)] == ["forgetting"]


async def test_a_persona_is_forgotten_with_who_wrote_it_in_the_thread_of_another(
    store: Store,
) -> None:
    queue, chosen = await talk(store), PreferenceStore(store=store)
    thread = replace(SHARED, thread="t3")
    await answered(queue, turn(8, BOB, thread), "penguin")
    await answered(queue, turn(9, ANN, thread), "walrus")
    await chosen.change(thread, "thread", {"persona": "yodel"}, by=ANN.id)
    await chosen.change(thread, "thread", {"max_tokens": 9}, by=BOB.id)

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert await left_of_ann(store) == []
    found = (await chosen.read(thread))["thread"]
    assert (found.persona, found.max_tokens) == ("", 9)


class _Dying(Store):
    """Dies before, or just after, what it is asked at this number."""

    def __init__(self, store: Store, calls: int, *, before: bool) -> None:
        prefix = store.key("").removesuffix(":{0}:")
        super().__init__(client=store.redis, url=store.url, prefix=prefix)
        self.left, self.before = calls, before

    async def command(self, *words: str | int | float) -> Any:
        return await self._counted(super().command(*words))

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = await self._counted(super().commands(commands))
        return answers

    def script(self, source: str, *, if_full: bool = False, lasting: bool = False) -> Script:
        run = super().script(source, if_full=if_full, lasting=lasting)

        async def counted(*, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
            return await self._counted(run(keys=keys, args=args))

        return counted

    async def _counted(self, asking: Coroutine[Any, Any, Any]) -> Any:
        self.left -= 1
        if self.left == 0 and self.before:
            asking.close()
            raise KeyboardInterrupt
        answer = await asking
        if self.left == 0:
            raise KeyboardInterrupt
        return answer


@pytest.mark.parametrize("before", [True, False])
async def test_a_worker_that_dies_at_any_step_leaves_the_rest_to_another(
    store: Store, before: bool
) -> None:
    queue = await talk(store)
    complete, step = False, 0
    while not complete:
        step += 1
        await answered(queue, turn(100 + step, ANN), "walrus")
        await begin(store, queue.forgetting)
        dying = QueueScript(_Dying(store, step, before=before), keep_seconds=60)
        try:
            await work_due(Forgetting(dying, own_names={}))
            complete = True
        except KeyboardInterrupt:
            # The time of the dead worker's claim is over.
            await store.command("ZADD", store.key("forgetting"), "XX", 0, WHO)
        await work_due(queue.forgetting)

        assert await left_of_ann(store) == [], step
        assert await of_bob(store) == ["Bob", "lion", "penguin", "hum"]
    assert step > 20


async def test_the_next_worker_finds_the_threads_of_which_only_the_dead_one_knew(
    store: Store,
) -> None:
    queue, step, is_complete = make_queue(store), 0, False
    while not is_complete:
        step += 1
        await answered(queue, turn(100 + 2 * step, ANN), "owl")
        await answered(queue, turn(101 + 2 * step, BOB), "owl")
        await store.command("DEL", store.key("of", "discord", ANN.id))
        await begin(store, queue.forgetting)
        dying = QueueScript(_Dying(store, step, before=True), keep_seconds=60)
        try:
            await work_due(Forgetting(dying, own_names={}))
            is_complete = True
        except KeyboardInterrupt:
            await store.command("ZADD", store.key("forgetting"), "XX", 0, WHO)
        await work_due(queue.forgetting)

        assert await left_of_ann(store) == [], step
    assert step > 10


async def test_meanwhile_the_person_is_refused_and_running_turns_end_first(store: Store) -> None:
    queue, history = await talk(store), History(store=store, keep_seconds=60)
    await queue.admit(turn(7, BOB))
    other = await next_of(queue)
    heard = said_by(ANN, "yodel", 94)
    await queue.leases.save_context(other, None, [heard])
    await queue.admit(turn(8, ANN, OWN))
    own = await next_of(queue)
    await queue.leases.save(own, Shown(("m8",), "walrus", "walrus"))
    await queue.admit(turn(9, ANN))

    await queue.forgetting.begin(WHO)
    pause = Forgetter(queue.forgetting, pause_seconds=0.01)
    async with running(pause.run()):
        while not await queue.leases.renew(own):
            await asyncio.sleep(0.01)
        with pytest.raises(BeingForgotten):
            await queue.admit(turn(10, ANN))
        await history.save_name(SHARED, ANN)
        await history.keep_message("discord:kept", heard)
        await queue.changes.rate("discord:2", person_id=ANN.id, rating="bad")
        assert not await queue.forgetting.is_done(WHO)
        await queue.leases.finish(
            own, Shown(("m8",), "walrus", "walrus", outcome="stopped"), exchange_of(own.turn, "w")
        )
        done = Shown(("m7",), "seal", "seal", outcome="done")
        await queue.leases.finish(other, done, exchange_of(other.turn, "seal", heard))
        while not await queue.forgetting.is_done(WHO):
            await asyncio.sleep(0.01)
        # Answered once more, that reply has no more words of the person.
        await queue.changes.regenerate("discord:7", person_id=BOB.id, press_id="press")
        await next_of(queue)
        await queue.forgetting.begin(WHO)
        async with asyncio.timeout(60):
            while not await queue.forgetting.is_done(WHO):
                await asyncio.sleep(0.01)

    assert await left_of_ann(store) == []
    assert (await of_bob(store))[-3:] == ["Bob", "lion", "seal"]
    assert await queue.admit(turn(11, ANN, OWN))


async def test_a_rating_of_a_person_who_is_being_forgotten_is_not_stored(store: Store) -> None:
    queue = await talk(store)
    await queue.forgetting.begin(WHO)

    await queue.changes.rate("discord:2", person_id=ANN.id, rating="bad")

    assert await store.command("HGET", store.key("ratings", "discord:2"), ANN.id) == "good"


async def test_a_message_of_a_person_who_is_being_forgotten_is_not_kept(store: Store) -> None:
    queue, history = make_queue(store), History(store=store, keep_seconds=60)
    await queue.forgetting.begin(WHO)

    await history.keep_message("discord:menu", said_by(ANN, "yodel", 93))

    assert await history.kept_message("discord:menu") is None


async def test_words_of_a_person_who_is_being_forgotten_are_in_no_new_context(store: Store) -> None:
    queue = await talk(store)
    await queue.forgetting.begin(WHO)
    await queue.admit(turn(7, BOB))

    heard = said_by(ANN, "yodel", 94), said_by(BOB, "hum", 95)
    await queue.leases.save_context(await next_of(queue), None, heard)

    (line,) = await store.command("LRANGE", store.key("context", "discord:7"), 0, -1)
    assert "hum" in line


async def test_a_job_that_waits_for_a_reply_delays_no_other(store: Store) -> None:
    queue = await talk(store)
    await queue.admit(turn(8, ANN, OWN))
    await next_of(queue)
    bob = named("person", "discord", BOB.id)

    for who in (WHO, bob):
        await queue.forgetting.begin(who)
    async with running(Forgetter(queue.forgetting, pause_seconds=0.01).run()):
        async with asyncio.timeout(30):
            while not await queue.forgetting.is_done(bob):
                await asyncio.sleep(0.01)

    assert not await queue.forgetting.is_done(WHO)


async def test_several_may_carry_out_a_job_at_once(store: Store) -> None:
    queue = await talk(store)
    for number in range(200):
        await store.command("SET", store.key("message", f"discord:{number}"), "{}", "EX", 60)

    await asyncio.gather(*(queue.forgetting.begin(WHO) for _ in range(3)))
    await asyncio.gather(*(queue.forgetting.carry_out(WHO) for _ in range(3)))

    assert await left_of_ann(store) == []
    assert await of_bob(store) == ["Bob", "lion", "penguin", "hum"]


async def test_a_persona_that_another_has_written_meanwhile_stays(store: Store) -> None:
    chosen, written_by_ann = PreferenceStore(store=store), f'"{ANN.id}"'
    await chosen.change(SHARED, "thread", {"persona": "roar"}, by=BOB.id)

    script = QueueScript(store, keep_seconds=60)
    await script.run("forget_persona", str(SHARED), written_by_ann)

    assert (await chosen.read(SHARED))["thread"].persona == "roar"


async def test_what_is_chosen_stays_for_a_person_who_was_not_noted_in_a_crowd(
    store: Store,
) -> None:
    queue, chosen = make_queue(store), PreferenceStore(store=store)
    await answered(queue, turn(8, BOB), "penguin")
    await answered(queue, turn(9, ANN), "walrus")
    await store.command("SREM", store.key("speakers", str(SHARED)), BOB.id)
    await chosen.change(SHARED, "thread", {"max_tokens": 9}, by=BOB.id)

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert (await chosen.read(SHARED))["thread"].max_tokens == 9


async def test_what_is_left_goes_even_if_the_note_of_the_threads_has_expired(store: Store) -> None:
    queue = await talk(store)
    await store.command("DEL", store.key("of", "discord", ANN.id))

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert await left_of_ann(store) == []


async def test_words_that_are_kept_for_another_attempt_are_found_as_long_as_they_are_there(
    store: Store,
) -> None:
    queue = make_queue(store)
    await answered(queue, turn(1, BOB), "", said_by(ANN, "yodel", 91), outcome="failed")
    # So nothing is known of her but what his question shows.
    for name in ("of:discord:u-4711", "heard:discord:91"):
        await store.command("PEXPIRE", store.key(name), 300)
    await queue.changes.regenerate("discord:1", person_id=BOB.id, press_id="p1")
    await asyncio.sleep(0.4)

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert await left_of_ann(store) == []


async def test_a_person_who_was_only_quoted_leaves_nothing(store: Store) -> None:
    queue = make_queue(store)
    heard = said_by(ANN, "yodel", 91), said_by(BOB, "hum", 92)
    await answered(queue, turn(2, BOB, text="lion"), "penguin", *heard)

    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)

    assert "yodel" not in str(await stored(store))
    assert await of_bob(store) == ["Bob", "lion", "penguin", "hum"]


async def test_a_worker_whose_job_has_ended_leaves_later_questions_alone(store: Store) -> None:
    queue = await talk(store)
    before = await left_of_ann(store)

    assert await queue.forgetting.carry_out(WHO) == 0

    assert await left_of_ann(store) == before


async def test_threads_of_their_own_go_whole_and_open_pages_learn_of_it(store: Store) -> None:
    queue, own = make_queue(store), replace(SHARED, thread=f"ask-{ANN.id}")
    script = QueueScript(store, keep_seconds=60)
    forgetting = Forgetting(script, own_names={PLATFORM: ("-{id}:",)})
    await answered(queue, turn(1, ANN, own), "walrus")
    await PreferenceStore(store=store).change(own, "thread", {"max_tokens": 9}, by=BOB.id)
    await live.announce(store, own, "discord:1")
    stream = live.stream_of(store, own)
    shown = await live.last_entry(store, stream)

    await forgetting.begin(WHO)
    async with running(live.read(store, {stream: shown}, block_seconds=60.0)) as page:
        while not any("b" in one["flags"] for one in await store.redis.client_list()):
            await asyncio.sleep(0.01)
        await work_due(forgetting)
        changes = [change for _, _, change in await page]

    assert [one.gone for one in changes] == [True]
    assert await left_of_ann(store) == []
    assert await PreferenceStore(store=store).read_all() == {}


async def test_a_platform_learns_whose_answers_it_is_to_remove(store: Store) -> None:
    await talk(store)
    script, key = QueueScript(store, keep_seconds=60), store.key("removals", PLATFORM)
    forgetting = Forgetting(script, own_names={}, removes_on=[PLATFORM])
    for who in (WHO, named("server", PLATFORM, "g1"), named("person", "slack", ANN.id)):
        await forgetting.begin(who)
        await work_due(forgetting)

    (owed,) = await store.command("SMEMBERS", key)
    assert owed.split(" ")[0] == ANN.id
    assert 0 < await store.command("TTL", key) <= 60


async def test_a_command_in_a_thread_of_their_own_leaves_nothing(store: Store) -> None:
    queue, own = make_queue(store), replace(SHARED, thread=f"ask-{ANN.id}")
    forgetting = Forgetting(QueueScript(store, keep_seconds=60), own_names={PLATFORM: ("-{id}:",)})
    await queue.changes.reset(own, "event")

    await forgetting.begin(WHO)
    await work_due(forgetting)

    assert await left_of_ann(store) == []


async def test_a_server_leaves_nothing(store: Store) -> None:
    queue = await talk(store)
    elsewhere = replace(SHARED, workspace="g2")
    await answered(queue, turn(20, BOB, elsewhere), "gnu")
    who = named("server", "discord", "g1")

    await queue.forgetting.begin(who)
    await work_due(queue.forgetting)

    assert [one.name for one in await stored(store) if "g1" in one] == []
    words = [*TRACES[2:], "penguin", "owl", "hum"]
    kept = [one for one in await stored(store) if not one.name.startswith("message:")]
    assert [one for one in kept if any(word in one for word in words) and "gnu" not in one] == []
    assert [one.answer for one in await History(store=store, keep_seconds=60).read(elsewhere)] == [
        "gnu"
    ]
