"""Files are fetched within limits of memory, and with patience."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import pytest

from bot.domain import Exchange, FileRef, FileText
from bot.errors import WriteDelayed, WriteFailed
from bot.files.problem import Problem
from bot.turns.files import FileReader
from tests.support.at_work import ANN
from tests.support.fakes import FakePlatform
from tests.support.pictures import png
from tests.support.waiting import until


@dataclass
class Sending(FakePlatform):
    """Sends zeros when it `may`; the first files fail with `errors`."""

    errors: list[Exception] = field(default_factory=list)
    may: Callable[[], bool] = lambda: True
    under_way: int = 0
    sent: int = 0  # bytes
    longer: int = 0  # bytes that a file has beyond its size

    async def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        self.fetched.append(file.id)
        if self.errors:
            raise self.errors.pop(0)
        self.under_way += 1
        try:
            await until(self.may)
            for _ in range(max(file.size + self.longer, 1000) // 1000):
                self.sent += 1000
                yield bytes(1000)
        finally:
            self.under_way -= 1


def ref(number: int = 1, *, size: int) -> FileRef:
    return FileRef(f"x:{number}", "x:1", f"{number}.txt", size, {})


def reader(*, most_mb: int = 1, seconds: float = 20.0) -> FileReader:
    return FileReader(most=5, most_mb=most_mb, seconds=seconds)


async def read(
    reading: FileReader, file: FileRef, platform: FakePlatform, *others: FileRef
) -> FileText:
    async def save(file: FileRef, text: FileText) -> None:
        raise AssertionError(f"{file.name} has no text: {text.text}")

    asked = Exchange("x:1", ANN, 1000.0, "What is it?", "", files=(file, *others))
    return (await reading.read(asked, {}, platform, save))[file.id]


@pytest.mark.parametrize(("mb", "at_once"), [(1, 4), (10, 3), (40, 1)])
async def test_few_files_are_in_memory_at_once(mb: int, at_once: int) -> None:
    reading, platform = reader(most_mb=mb), Sending(may=lambda: False)
    files = [ref(one, size=0) for one in range(6)]

    tasks = [asyncio.create_task(read(reading, one, platform)) for one in files]
    try:
        await until(lambda: platform.under_way == at_once)
        await asyncio.sleep(0.05)

        assert len(platform.fetched) == at_once
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert platform.under_way == 0


async def test_after_each_file_the_next_one_is_fetched() -> None:
    reading, platform = reader(), Sending()

    files = [ref(one, size=2000) for one in range(9)]
    found = await asyncio.gather(*(read(reading, one, platform) for one in files))

    assert len(platform.fetched) == len(found) == 9


async def test_no_more_is_fetched_of_a_file_than_it_may_have() -> None:
    platform = Sending(longer=10_000_000)

    found = await read(reader(), ref(size=5000), platform)

    assert found.problem == "I have not read {names}: 1 MB is the limit."
    assert platform.sent == 1_001_000


async def test_where_no_files_are_read_none_is_fetched() -> None:
    platform = Sending()

    found = await read(FileReader(most=0, most_mb=1), ref(size=1000), platform)

    assert found.problem == "I have not read {names}: no files are read here."
    assert platform.fetched == []


async def test_a_failure_that_passes_is_not_told() -> None:
    platform = Sending(errors=[WriteFailed("x"), WriteDelayed("x", retry_after=0.01)])

    found = await read(reader(), ref(size=1000), platform)

    assert found.problem.startswith("I cannot read {names}: I read text")
    assert len(platform.fetched) == 3


async def test_people_wait_for_a_file_for_a_while_only() -> None:
    platform = Sending(may=lambda: False)

    found = await read(reader(seconds=0.05), ref(size=1000), platform)

    assert found.problem == "I could not fetch {names}."
    assert platform.under_way == 0


async def test_people_wait_for_all_files_of_a_question_for_a_while_only() -> None:
    reading, platform = reader(most_mb=40, seconds=0.1), Sending(may=lambda: False)

    files = [ref(one, size=0) for one in range(9)]
    found = await asyncio.gather(*(read(reading, one, platform) for one in files))

    assert found[0].problem == Problem.UNREACHABLE
    assert found[-1].problem == Problem.SLOW
    assert platform.under_way == 0


async def test_a_question_with_many_files_leaves_room_for_another_one() -> None:
    reading, platform = reader(most_mb=10), Sending(may=lambda: False)
    many = [ref(one, size=0) for one in range(5)]

    tasks = [asyncio.create_task(read(reading, many[0], platform, *many[1:]))]
    try:
        await until(lambda: platform.under_way >= 2)
        tasks.append(asyncio.create_task(read(reading, ref(9, size=0), platform)))
        await until(lambda: platform.under_way == 3)

        assert platform.fetched == ["x:0", "x:1", "x:9"]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_room_for_another_process_a_file_is_left_out() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        found = await read(reader(), ref(size=0), FakePlatform(files={"x:1": b"some text"}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert found == FileText("1.txt", problem=Problem.HEAVY)


async def test_a_picture_is_read_in_the_process_as_it_is() -> None:
    data = png(640, 480)

    found = await read(reader(), ref(size=0), FakePlatform(files={"x:1": data}))

    assert found.picture
    assert (found.picture.media_type, found.picture.data) == ("image/png", data)


async def test_pictures_beyond_64_mb_are_left_out_until_others_are_answered() -> None:
    large = png(9, 9) + bytes(3_900_000)
    platform, reading = (
        FakePlatform(files={f"x:{one}": large for one in range(18)}),
        reader(most_mb=10),
    )
    held = [await read(reading, ref(one, size=0), platform) for one in range(16)]

    late = await read(reading, ref(16, size=0), platform)
    del held[3]
    again = await read(reading, ref(16, size=0), platform)
    later = await read(reading, ref(17, size=0), platform)

    assert all(one.picture for one in (*held, again))
    assert late == FileText("16.txt", problem=Problem.MANY_PICTURES)
    assert later == FileText("17.txt", problem=Problem.MANY_PICTURES)
