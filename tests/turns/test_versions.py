"""Versions of a turn: one is open, and the others stay with what followed them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.access.quotas import Quota
from bot.domain import Exchange, FileRef, FileText, Outcome, Shown, Standing, ThreadKey, Turn
from bot.errors import NotRemembered, NotTheAsker, NotTheLast, QuotaUsed, ThreadBusy
from bot.store import Store
from bot.turns.forgetting import named
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.at_work import ANN, BOB, KEEP, LIMITS, make_queue, take
from tests.support.stored import stored

KEY = ThreadKey("console", "", ANN.id, "t1")
NOW = time.time()
BEGUN = 1_000.0


class Talk:
    """A thread of Ann whose turns are named by letters."""

    def __init__(self, store: Store, limits: Limits = LIMITS) -> None:
        self.store = store
        self.queue = make_queue(store, limits=limits)
        self.clock = BEGUN

    def turn(self, name: str, text: str = "") -> Turn:
        self.clock += 1
        return Turn(f"console:{name}", KEY, ANN, text or f"question {name}", {}, self.clock)

    async def end(self, name: str, answer: str = "", outcome: Outcome = "done") -> None:
        taken = await take(self.queue)
        assert taken.turn.id == f"console:{name}"
        answer = answer or f"answer {name}"
        shown = Shown((f"{taken.turn.id}/1",), answer, answer, outcome=outcome)
        exchange = Exchange(taken.turn.id, ANN, taken.turn.asked_at, taken.turn.text, answer)
        await self.queue.leases.finish(taken, shown, exchange if outcome == "done" else None)

    async def ask(self, *names: str) -> None:
        for name in names:
            await self.queue.admit(self.turn(name), quota=Quota(1000), estimate=10)
            await self.end(name)

    async def branch(self, old: str, new: str, text: str = "", outcome: Outcome = "done") -> None:
        assert await self.put(old, new, text)
        await self.end(new, outcome=outcome)

    async def put(self, old: str, new: str, text: str = "") -> bool:
        following, person = self.turn(new, text), ANN.id
        changes = self.queue.changes
        return await changes.branch(
            f"console:{old}", following, person_id=person, quota=Quota(1000)
        )

    async def open(self, name: str) -> None:
        await self.queue.changes.open(f"console:{name}", person_id=ANN.id)

    async def history(self) -> str:
        found = await History(store=self.store, keep_seconds=KEEP).read(KEY)
        assert all(one.question.endswith(one.answer[-1]) for one in found)
        return "".join(one.answer[-1] for one in found)

    async def standings(self, *, aside: bool = False) -> list[Standing]:
        names = await self.store.command("KEYS", self.store.key("turn", "*"))
        ids = sorted(name.removeprefix(self.store.key("turn", "")) for name in names)
        return await self.queue.lookup.standings(*ids, person_id=ANN.id, aside=aside)

    async def shown(self) -> str:
        return "".join(one.turn_id[-1] for one in await self.standings())

    async def versions(self, name: str) -> str:
        (one,) = [it for it in await self.standings() if it.turn_id == f"console:{name}"]
        return "".join(it[-1] for it in one.versions)

    async def newest(self) -> str:
        found = await self.store.command("GET", self.store.key("newest", str(KEY)))
        return str(found or "")[-1:]


@pytest.fixture
def talk(store: Store) -> Talk:
    return Talk(store)


async def test_an_earlier_question_begins_a_branch_and_the_old_one_stays(talk: Talk) -> None:
    await talk.ask("a", "b", "c")
    await talk.branch("b", "d")
    await talk.ask("e")
    new = await talk.history(), await talk.shown(), await talk.versions("d"), await talk.newest()
    await talk.open("b")
    old = await talk.history(), await talk.shown(), await talk.versions("b"), await talk.newest()
    await talk.ask("f")
    grown = await talk.history()
    await talk.open("d")

    assert new == ("ade", "ade", "bd", "e")
    assert old == ("abc", "abc", "bd", "c")
    assert grown == "abcf"
    assert (await talk.history(), await talk.shown()) == ("ade", "ade")


async def test_versions_within_versions_come_back_as_they_were_left(talk: Talk) -> None:
    await talk.ask("a", "b", "c")
    await talk.branch("c", "d")
    await talk.branch("a", "e")
    await talk.ask("f")
    await talk.branch("f", "g")
    seen = [await talk.history()]
    for name in ("a", "c", "e", "f", "a", "d", "e", "a"):
        await talk.open(name)
        seen.append(await talk.history())

    assert seen == ["eg", "abd", "abc", "eg", "ef", "abc", "abd", "ef", "abd"]
    assert [await talk.versions(name) for name in "abd"] == ["ae", "", "cd"]


async def test_what_the_model_is_asked_with_is_the_open_branch(talk: Talk) -> None:
    await talk.ask("a", "b", "c")
    await talk.put("b", "d", "another")
    newest = await talk.newest()

    taken = await take(talk.queue)

    # What it shows above it is of the open branch, too.
    assert (newest, taken.above) == ("a", "console:a/1")
    assert taken.turn.text == "another"
    assert await talk.history() == "a"


async def test_a_version_whose_answer_failed_can_be_left_and_tried_again(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.branch("a", "c", outcome="failed")
    failed = await talk.history(), await talk.shown()
    await talk.open("a")
    left = await talk.history(), await talk.shown()
    await talk.open("c")
    again = await talk.put("c", "press-one", "question c")
    twice = await talk.put("c", "press-one", "question c")
    await talk.end("c")

    assert (failed, left) == (("", "c"), ("ab", "ab"))
    # There was nothing to keep, so it is no further version.
    assert (again, twice) == (False, False)
    assert await talk.versions("c") == "ac"
    assert await talk.history() == "c"


async def test_a_call_that_comes_twice_counts_once(talk: Talk) -> None:
    await talk.ask("a", "b")
    assert await talk.put("a", "c")
    assert await talk.put("a", "c")
    await talk.end("c")
    assert await talk.put("a", "c")
    for _ in range(2):
        await talk.open("a")

    assert await talk.history() == "ab"
    assert (await talk.versions("a"), (await talk.queue.load([])).open) == ("ac", 0)
    usage = await talk.queue.usage(KEY, ANN, Quota())
    assert usage.questions == 3


async def test_only_the_asker_of_an_idle_thread_with_quota_gets_a_version(talk: Talk) -> None:
    await talk.ask("a", "b")
    changes, following = talk.queue.changes, talk.turn("c")
    with pytest.raises(NotTheAsker):
        await changes.branch("console:a", following, person_id=BOB.id)
    with pytest.raises(NotRemembered):
        await changes.branch("console:x", following, person_id=ANN.id)
    with pytest.raises(QuotaUsed):
        await changes.branch("console:a", following, person_id=ANN.id, quota=Quota(2))
    await talk.branch("a", "d")
    with pytest.raises(NotTheAsker):
        await changes.open("console:a", person_id=BOB.id)
    # Its branch is not open.
    with pytest.raises(NotRemembered):
        await talk.put("b", "e")
    with pytest.raises(NotRemembered):
        await talk.open("b")
    await talk.queue.admit(talk.turn("f"))
    with pytest.raises(ThreadBusy):
        await talk.put("d", "g")
    with pytest.raises(ThreadBusy):
        await talk.open("a")
    await talk.open("d")
    await talk.end("f")

    assert (await talk.history(), await talk.shown()) == ("df", "df")


async def test_a_stale_page_that_edits_a_version_aside_replaces_the_open_one(talk: Talk) -> None:
    await talk.ask("a")
    await talk.branch("a", "b")
    await talk.branch("a", "c")

    assert (await talk.history(), await talk.versions("c")) == ("c", "abc")


async def test_texts_of_files_and_effects_hold_for_the_next_version(talk: Talk) -> None:
    file = FileRef("f1", "console:a", "a.txt", 3, {})
    await talk.queue.admit(replace(talk.turn("a"), files=(file,)))
    taken = await take(talk.queue)
    text = FileText("a.txt", "walrus")
    await talk.queue.leases.save_file(taken, file.message, file.id, text)
    await talk.store.command("SADD", talk.store.key("effects", "console:a"), "digest")
    shown = Shown(("m1",), "answer a", "answer a", outcome="done")
    exchange = Exchange("console:a", ANN, BEGUN, "question a", "answer a", files=(file,))
    await talk.queue.leases.finish(taken, shown, exchange)
    own = replace(file, message="console:b")
    following = replace(talk.turn("b"), files=(own,))
    await talk.queue.changes.branch("console:a", following, person_id=ANN.id)
    await talk.end("b")

    (found,) = await History(store=talk.store, keep_seconds=KEEP).read(KEY)
    texts = await History(store=talk.store, keep_seconds=KEEP).file_texts(found)
    assert found.files == (own,)
    assert texts["f1"].text == "walrus"
    key = talk.store.key("effects", "console:b")
    assert await talk.store.command("SMEMBERS", key) == {"digest"}


async def words(store: Store) -> set[str]:
    """Return the last letters of the questions and answers that the store has."""
    found = await stored(store)
    return {letter for letter in "abcdefgh" for it in found if f"question {letter}" in it} | {
        letter for letter in "abcdefgh" for it in found if f"answer {letter}" in it
    }


async def test_a_deleted_message_goes_with_its_versions_and_what_followed_them(
    talk: Talk,
) -> None:
    await talk.ask("a", "b", "c")
    await talk.branch("c", "d")
    await talk.branch("b", "e")
    await talk.ask("f")
    now = time.time()
    first = await talk.queue.changes.forget_words("console:e", asked_at=now)
    again = await talk.queue.changes.forget_words("console:e", asked_at=now)

    assert sorted({one[-1] for one in first}) == ["b", "c", "d", "e"]
    # A call that is sent again, because a process was killed, says the same.
    assert set(first) == set(again)
    assert (await talk.history(), await talk.shown()) == ("af", "af")
    assert await words(talk.store) == {"a", "f"}


async def test_a_reset_leaves_nothing_of_any_version(talk: Talk) -> None:
    await talk.ask("a", "b", "c")
    await talk.branch("b", "d")
    before = await words(talk.store)
    # As in a thread that is older than its turns are listed.
    await talk.store.command("DEL", talk.store.key("turns", str(KEY)))
    await talk.queue.changes.reset(KEY)

    assert (before, await words(talk.store)) == ({*"abcd"}, set())
    assert (await talk.history(), await talk.shown()) == ("", "")


async def test_forget_me_leaves_nothing_of_any_version(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.branch("a", "c")
    who = named("person", "console", ANN.id)
    await talk.queue.forgetting.begin(who)
    async with asyncio.timeout(30):
        while not await talk.queue.forgetting.is_done(who):
            await talk.queue.forgetting.carry_out(who)

    assert await words(talk.store) == set()
    left = {it.name.partition(":")[0] for it in await stored(talk.store)}
    assert not left & {"history", "aside", "versions"}


async def test_the_oldest_version_of_many_goes_with_what_followed_it(talk: Talk) -> None:
    await talk.ask("a", "b")
    for number in range(20):
        await talk.branch("a" if not number else f"v{number - 1}", f"v{number}", f"q {number}")

    (open_one,) = await talk.standings()
    assert len(open_one.versions) == 20
    assert open_one.versions[0] == "console:v0"
    assert await words(talk.store) == set()


async def test_versions_count_among_what_is_kept_of_a_person(store: Store) -> None:
    talk = Talk(store, replace(LIMITS, person_bytes=6_000))
    await talk.ask("a", "b")
    await talk.branch("a", "c")
    await talk.branch("c", "d")
    await talk.branch("d", "e")

    # The oldest went, and what only it leads to.
    assert await words(store) == {"c", "d", "e"}
    assert (await talk.history(), await talk.versions("e")) == ("e", "cde")


async def test_what_is_aside_in_a_long_thread_is_bounded_and_the_last_branch_stays(
    talk: Talk,
) -> None:
    await talk.ask("a", *(f"x{number}" for number in range(10)), "b")
    await talk.branch("a", "c")
    await talk.ask(*(f"y{number}" for number in range(205)))
    await talk.branch("c", "d")

    assert await talk.versions("d") == "cd"
    size = await talk.store.command("LLEN", talk.store.key("aside", str(KEY)))
    assert size == 206
    await talk.open("c")
    assert len(await talk.standings()) == 206


async def test_every_answer_keeps_what_is_aside_as_long_as_the_thread(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.branch("a", "c", outcome="failed")
    names = [("turn", "console:a"), ("turn", "console:b"), ("turn", "console:c")]
    names += [("versions", "console:a"), ("thoughts", "console:a")]
    await talk.store.command("HSET", talk.store.key(*names[-1]), "text", "Hm.")
    keys = [talk.store.key(*one) for one in names]
    keys.append(talk.store.key("aside", str(KEY)))
    for key in keys:
        await talk.store.command("PEXPIRE", key, 5_000)
    await talk.ask("d")

    assert min([await talk.store.command("PTTL", key) for key in keys]) > 5_000


async def test_a_restore_ends_a_version_that_waits_and_the_old_one_comes_back(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.put("a", "c")
    await talk.queue.leases.end_all(["console"], until=NOW, is_live=False)
    ended = await talk.shown()
    await talk.open("a")

    assert ended == "c"
    assert await talk.history() == "ab"


async def test_words_aside_go_when_nothing_is_remembered_any_more(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.branch("a", "c")
    await History(store=talk.store, keep_seconds=KEEP, remembers=False).read(KEY)

    found = [it for it in await stored(talk.store) if "answer" in json.dumps(it.value)]
    assert not [it for it in found if it.kind == "hash" and _has_words(it.value)]


def _has_words(value: Mapping[str, str]) -> bool:
    return any(value.get(field) for field in ("text", "answer", "shown"))


async def test_a_late_write_to_a_version_aside_is_repaired_without_opening_it(talk: Talk) -> None:
    await talk.ask("a", "b")
    await talk.branch("a", "c")
    turn = Turn("console:b", KEY, ANN, "question b", {}, BEGUN)
    await talk.queue.repairs.report_late_writes(turn, ["console:b/1"])
    repair = await talk.queue.repairs.claim("console", seconds=60)

    assert repair
    assert repair.turn.id == "console:b"
    await talk.queue.repairs.complete(repair)
    assert (await talk.history(), await talk.shown()) == ("c", "c")


async def test_a_failed_version_aside_is_neither_edited_nor_answered_in_its_place(
    talk: Talk,
) -> None:
    await talk.ask("a", "b")
    await talk.branch("b", "c", outcome="failed")
    await talk.branch("c", "d", outcome="failed")
    edited = Turn("console:c", KEY, ANN, "other", {}, BEGUN)
    await talk.queue.edit(edited, edited_at=NOW)
    with pytest.raises(NotTheLast):
        await talk.queue.changes.regenerate("console:c", person_id=ANN.id, press_id="p1")

    assert (await talk.queue.load([])).open == 0
    assert (await talk.history(), await talk.shown()) == ("a", "ad")
