"""Files are fetched and read once, known to later questions, and forgotten with what named them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.domain import (
    ContextMessage,
    Exchange,
    FileRef,
    FilesRead,
    FileText,
    Message,
    Person,
    Shown,
    Turn,
)
from bot.errors import LeaseLost, MessageGone, ModelUnavailable, WriteRefused
from bot.reply.draft import READING
from bot.store import Store
from bot.turns.queue import Taken, TurnQueue
from bot.turns.records import History, write_file_text
from tests.support.at_work import (
    ANN,
    BOB,
    KEEP,
    KEY,
    LIMITS,
    all_ended,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    press,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.pictures import png
from tests.support.waiting import until


def ref(number: int, message: int = 1, *, size: int = 9) -> FileRef:
    return FileRef(f"console:f{number}", f"console:{message}", f"f{number}.txt", size, {"at": 7})


def with_files(number: int, *files: int) -> Turn:
    return replace(make_turn(number), files=tuple(ref(one, number) for one in files))


def platform_of(*numbers: int, context: Sequence[ContextMessage] = ()) -> FakePlatform:
    files: dict[str, bytes | Exception] = {
        f"console:f{one}": f"text {one}".encode() for one in numbers
    }
    return FakePlatform(files=files, context=context)


async def asked(
    store: Store, platform: FakePlatform, *turns: Turn, model: FakeModel | None = None
) -> list[Message]:
    """Answer turns one after the other; return the last prompt."""
    model = model or FakeModel()
    async with working(make_worker(store, platform, model)):
        for turn in turns:
            await make_queue(store).admit(turn)
            await all_ended(store)
        await all_ended(store)
    return model.prompts[-1]


def texts(message: Message) -> list[str]:
    return [file.text or file.problem for file in message.files]


async def stored(store: Store, *numbers: int) -> list[str]:
    """Return the ids of the files of which these turns keep the text."""
    history = History(store=store, keep_seconds=KEEP)
    turns = [
        Exchange(f"console:{one}", ANN, 1000.0, "?", "answer", files=(ref(one),)) for one in numbers
    ]
    return sorted(await history.file_texts(*turns))


async def test_a_file_is_read_once_and_known_to_a_later_question(store: Store) -> None:
    platform = platform_of(1)
    await asked(store, platform, with_files(1, 1))

    _, first, _, last = await asked(store, platform, make_turn(2))

    assert texts(first) == ["text 1"]
    assert texts(last) == []
    assert platform.fetched == ["console:f1"]


async def test_a_file_that_is_sent_twice_stays_with_the_second_question(store: Store) -> None:
    platform, again = platform_of(1), replace(make_turn(2), files=(ref(1, 2),))
    await asked(store, platform, with_files(1, 1), again)

    await make_queue(store).changes.forget("console:1")

    assert platform.fetched == ["console:f1"]
    assert await stored(store, 2) == ["console:f1"]


async def test_a_second_worker_neither_fetches_nor_reads_again(store: Store) -> None:
    platform, model = platform_of(1), FakeModel([lambda: False])
    await make_queue(store).admit(with_files(1, 1))
    async with working(make_worker(store, platform, model, drain=0.0)):
        await until(lambda: model.prompts)
    await expire_all(store)

    prompt = await asked(store, platform)

    assert texts(prompt[-1]) == ["text 1"]
    assert platform.fetched == ["console:f1"]


async def test_a_quoted_message_and_those_of_the_context_bring_their_files(store: Store) -> None:
    quote = ContextMessage("console:90", BOB, "[file]", files=(ref(2, 90),))
    heard = [
        ContextMessage(f"console:{one}", BOB, "[file]", files=(ref(one, one),)) for one in (91, 92)
    ]
    turn = replace(with_files(1, 1), quote=quote)

    prompt = await asked(store, platform_of(1, 2, 91, 92, context=heard), turn)

    many = "I have not read {names}: I read at most 3 at once."
    assert texts(prompt[-1]) == ["text 1", "text 2", "text 92", many]


async def test_the_files_of_questions_that_are_answered_together_are_read(store: Store) -> None:
    turns = [replace(with_files(one, one), joins=True) for one in (1, 2)]
    for turn in turns:
        await make_queue(store).admit(turn)
    platform = platform_of(1, 2)

    prompt = await asked(store, platform)
    _, first, _, _ = await asked(store, platform, make_turn(3))

    assert texts(prompt[-1]) == texts(first) == ["text 1", "text 2"]
    await make_queue(store).changes.forget("console:2")
    assert await stored(store, 1) == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (MessageGone("gone"), "I cannot find {names} any more."),
        (WriteRefused("scope files:read is missing"), "I may not open {names}."),
    ],
)
async def test_a_file_that_cannot_be_fetched_is_tried_again_when_asked_again(
    error: Exception, problem: str, store: Store
) -> None:
    platform = FakePlatform(files={"console:f1": error})

    prompt = await asked(store, platform, with_files(1, 1))
    await press(store)
    platform.files["console:f1"] = b"here"
    again = await asked(store, platform)

    assert texts(prompt[-1]) == [problem]
    assert texts(again[-1]) == ["here"]


async def test_a_file_that_is_too_large_is_not_fetched(store: Store) -> None:
    turn = replace(make_turn(1), files=(ref(1, size=1_000_001),))
    platform = platform_of(1)

    prompt = await asked(store, platform, turn)

    assert texts(prompt[-1]) == ["I have not read {names}: 1 MB is the limit."]
    assert platform.fetched == []


async def test_a_picture_is_fetched_again_until_it_is_described(store: Store) -> None:
    platform, model = FakePlatform(files={"console:f1": png(9, 9)}), FakeModel([lambda: False])
    await make_queue(store).admit(with_files(1, 1))
    async with working(make_worker(store, platform, model, drain=0.0)):
        await until(lambda: model.prompts)
    await expire_all(store)

    description = await asked(store, platform)
    _, first, *_ = await asked(store, platform, make_turn(2))

    assert [one.name for one in description[-1].files if one.picture] == ["f1.txt"]
    assert texts(first) == ["A picture, which shows: Hello world"]
    assert platform.fetched == ["console:f1"] * 2


async def test_a_picture_that_is_gone_is_known_by_its_description_and_said_to_be_gone(
    store: Store,
) -> None:
    platform = FakePlatform(files={"console:f1": png(9, 9)})
    await asked(store, platform, with_files(1, 1))
    await press(store)
    platform.files["console:f1"] = MessageGone("gone")

    prompt = await asked(store, platform)

    assert texts(prompt[-1]) == ["A picture, which shows: Hello world"]
    assert platform.shown.text.endswith("(I cannot find `f1.txt` any more.)")


async def test_a_picture_that_is_not_described_leaves_the_others_theirs(store: Store) -> None:
    platform = FakePlatform(files={f"console:f{one}": png(9, 9) for one in (1, 2)})
    model = FakeModel()

    def fail_once() -> bool:
        if len(model.prompts) == 2:
            raise ModelUnavailable("away")
        return True

    model.deltas = ["Well.", fail_once]
    await asked(store, platform, with_files(1, 1, 2), model=model)

    assert await stored(store, 1) == ["console:f2"]


async def test_no_sign_of_work_is_shown_while_a_picture_is_described(store: Store) -> None:
    platform, model = FakePlatform(files={"console:f1": png(9, 9)}), FakeModel()
    closed: list[int] = []

    def note() -> bool:
        closed.append(platform.closed)
        return True

    model.deltas = ["Well.", note]
    await asked(store, platform, with_files(1, 1), model=model)

    assert platform.shown.text == "Well."
    assert closed == [0, 1]


async def test_the_pictures_of_an_answer_that_has_failed_are_not_described(store: Store) -> None:
    platform = FakePlatform(files={"console:f1": png(9, 9)})
    model = FakeModel(["Half"], error=ModelUnavailable("gone"))

    await asked(store, platform, with_files(1, 1), model=model)

    assert [len(prompt[-1].pictures) for prompt in model.prompts] == [1]
    assert await stored(store, 1) == []


async def test_the_pictures_of_an_answer_that_was_stopped_are_not_described(store: Store) -> None:
    platform = FakePlatform(files={"console:f1": png(9, 9)})
    model = FakeModel(["Half", lambda: False])
    await make_queue(store).admit(with_files(1, 1))
    async with working(make_worker(store, platform, model)):
        await until(lambda: platform.shown.text)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert len(model.prompts) == 1


async def test_the_picture_of_a_whole_answer_is_fetched_again_to_be_described(
    store: Store,
) -> None:
    platform, model = FakePlatform(files={"console:f1": png(9, 9)}), FakeModel()
    # The description never ends.
    model.deltas = ["Well.", lambda: len(model.prompts) == 1]
    await make_queue(store).admit(with_files(1, 1))
    async with working(make_worker(store, platform, model, drain=0.0)):
        await until(lambda: len(model.prompts) == 2)
    await expire_all(store)

    await asked(store, platform, model=FakeModel(prompts=model.prompts))

    assert len(platform.fetched) == 2
    assert await stored(store, 1) == ["console:f1"]


async def test_people_read_what_is_read_and_what_was_left_out(store: Store) -> None:
    surface, name = FakeSurface(), "@everyone `x`\n[a](http://b).txt"
    unread = FileText("a.png", problem="I cannot see {names}.")
    file, platform = replace(ref(1), name=name), FakePlatform(shown=surface)
    model = FakeModel([FilesRead((unread,)), "Well."])

    async def fetch_slowly() -> None:
        await until(lambda: surface.states)

    platform.files["console:f1"], platform.wait = b"text", fetch_slowly
    async with working(make_worker(store, platform, model)):
        await make_queue(store).admit(replace(make_turn(1), files=(file,)))
        await all_ended(store)

    assert surface.states[0] == READING.format(names="`@everyone 'x' [a](http://b).txt`")
    assert surface.text == "Well.\n\n(I cannot see `a.png`.)"


async def keep(queue: TurnQueue, turn: Turn, *files: FileRef, text: str = "text") -> Taken:
    """Admit a turn, take it, and store what was read of files."""
    await queue.admit(turn)
    taken = await take(queue)
    for file in files or turn.files:
        await queue.leases.save_file(taken, file.message, file.id, FileText(file.name, text))
    return taken


async def finish(queue: TurnQueue, taken: Taken) -> None:
    turn = taken.turn
    exchange = Exchange(
        turn.id, turn.person, 1000.0, turn.text, "answer", context=turn.context or ()
    )
    shown = Shown(("m1",), "answer", "answer", outcome="done")
    await queue.leases.finish(taken, shown, replace(exchange, files=turn.files))


async def test_what_was_read_for_a_person_is_forgotten_with_them(store: Store) -> None:
    queue = make_queue(store)
    await finish(queue, await keep(queue, with_files(1, 1)))

    await queue.forgetting.begin("person:console:u1")
    await queue.forgetting.carry_out("person:console:u1")

    assert not await store.command("KEYS", store.key("files", "*"))


async def test_what_was_read_goes_with_its_thread_or_question(store: Store) -> None:
    queue = make_queue(store)
    for number, thread in ((1, "t1"), (2, "t2"), (3, "t3")):
        turn = replace(with_files(number, number), key=replace(KEY, thread=thread))
        await finish(queue, await keep(queue, turn))
    before = await stored(store, 1, 2, 3)

    await queue.changes.reset(KEY)
    await queue.changes.forget("console:2")

    assert before == ["console:f1", "console:f2", "console:f3"]
    assert await stored(store, 1, 2, 3) == ["console:f3"]


async def test_what_was_read_of_a_message_of_the_context_goes_with_it(store: Store) -> None:
    people = {7: BOB, 8: Person("u3", "Eve"), 9: BOB}
    context = tuple(
        ContextMessage(f"console:{one}", who, "x", files=(ref(one, one),))
        for one, who in people.items()
    )
    queue, turn = make_queue(store), replace(with_files(1, 1), context=context)
    taken = await keep(queue, turn, ref(1), *(ref(one, one) for one in people))

    await queue.changes.forget("console:7")
    await queue.leases.save_file(taken, "console:7", "console:f7", FileText("f7", "late"))
    await queue.forgetting.begin("person:console:u3")
    await queue.forgetting.carry_out("person:console:u3")

    assert await stored(store, 1) == ["console:f1", "console:f9"]


async def test_what_was_read_before_is_kept_within_a_limit(store: Store) -> None:
    text = "".join(chr(200 + at * 7919 % 20_000) for at in range(3_000))
    size = len(write_file_text(FileText("f1.txt", text)))
    queue = make_queue(store, limits=replace(LIMITS, file_bytes=size * 5 // 2))
    for number in (1, 2, 3):
        await finish(queue, await keep(queue, with_files(number, number), text=text))

    _, first, _, second, *_ = await asked(store, platform_of(), make_turn(4))

    assert await stored(store, 1, 2, 3) == ["console:f2", "console:f3"]
    assert first.files == (FileText("f1.txt"),)
    assert texts(second) == [text]


async def test_what_was_read_counts_as_what_is_kept_of_a_person(store: Store) -> None:
    text = "".join(chr(200 + at * 7919 % 20_000) for at in range(3_000))
    queue = make_queue(store, limits=replace(LIMITS, person_bytes=10_000))
    for number in (1, 2, 3):
        await finish(queue, await keep(queue, with_files(number, number), text=text))

    assert await stored(store, 1, 2, 3) == ["console:f3"]


@pytest.mark.parametrize("limits", [{"person_bytes": 10_000}, {"history_bytes": 10_000}])
async def test_names_of_files_count_as_what_is_kept(limits: dict[str, int], store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, **limits))
    for number in (1, 2, 3):
        file = replace(ref(number, number), name="n" * 8_000)
        await finish(queue, await keep(queue, replace(make_turn(number), files=(file,))))

    (exchange,) = await History(store=store, keep_seconds=KEEP).read(KEY)
    assert exchange.turn_id == "console:3"


async def test_a_question_that_is_left_out_of_an_answer_takes_its_files_along(store: Store) -> None:
    queue = make_queue(store)
    turns = [replace(with_files(one, one), joins=True) for one in (1, 2)]
    await queue.admit(turns[1])
    await queue.admit(turns[0])
    taken = await take(queue)
    for file in taken.turn.files:
        await queue.leases.save_file(taken, file.message, file.id, FileText(file.name, "x"))

    await queue.changes.forget("console:1")

    assert await stored(store, 2) == ["console:f2"]


async def test_an_edit_takes_a_file_away(store: Store) -> None:
    queue, turn = make_queue(store), with_files(1, 1, 2)
    await finish(queue, await keep(queue, turn))

    await queue.edit(replace(turn, text="new", files=(ref(2),)), edited_at=2000.0)
    taken = await take(queue)

    assert [file.id for file in taken.turn.files] == ["console:f2"]
    assert await stored(store, 1) == []


async def test_an_edit_takes_the_file_of_a_question_that_was_answered_with_another(
    store: Store,
) -> None:
    queue = make_queue(store)
    turns = [replace(with_files(one, one), joins=True) for one in (1, 2)]
    for turn in turns:
        await queue.admit(turn)
    taken = await take(queue)
    for file in taken.turn.files:
        await queue.leases.save_file(taken, file.message, file.id, FileText(file.name, "x"))
    await finish(queue, taken)

    await queue.edit(replace(turns[1], text="new", files=()), edited_at=2000.0)

    assert await stored(store, 1) == ["console:f1"]


async def test_a_file_that_is_read_when_an_edit_takes_it_away_is_not_stored(store: Store) -> None:
    queue, turn = make_queue(store), with_files(1, 1)
    taken = await keep(queue, turn)

    await queue.edit(replace(turn, text="new", files=()), edited_at=2000.0)
    await queue.leases.save_file(taken, turn.id, "console:f1", FileText("f1", "late"))

    assert await stored(store, 1) == []


async def test_texts_that_are_short_when_compressed_fill_no_memory(store: Store) -> None:
    queue, text = make_queue(store), "x" * 400_000
    for number in range(1, 9):
        await finish(queue, await keep(queue, with_files(number, number), text=text))

    assert await stored(store, *range(1, 9)) == [f"console:f{number}" for number in range(4, 9)]


async def test_a_worker_that_has_lost_its_turn_stores_nothing(store: Store) -> None:
    queue = make_queue(store)
    taken = await keep(queue, with_files(1, 1))
    await queue.leases.release(taken, delay_seconds=0, counts=False)
    await take(queue)

    with pytest.raises(LeaseLost):
        await queue.leases.save_file(taken, "console:1", "console:f2", FileText("f2", "x"))


async def test_without_a_history_what_was_read_expires_with_its_turn(store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, history=0))
    await finish(queue, await keep(queue, with_files(1, 1)))

    ends = [
        await store.command("PEXPIRETIME", store.key(kind, "console:1"))
        for kind in ("turn", "files")
    ]
    assert ends[0] == ends[1] > 0


async def test_files_that_cannot_be_read_from_the_store_are_left_out(store: Store) -> None:
    queue = make_queue(store)
    await finish(queue, await keep(queue, with_files(1, 1)))
    await store.command("HSET", store.key("files", "console:1"), "console:1 console:f1", "no")
    await store.command("HSET", store.key("turn", "console:1"), "files", "[7]")

    assert await stored(store, 1) == []
    (exchange,) = await History(store=store, keep_seconds=KEEP).read(KEY)
    assert exchange.files == ()
