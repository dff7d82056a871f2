"""Each kind of file is read in the page and at the terminal, and known to later questions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="reading needs requirements-files.txt")
pytest.importorskip("openpyxl", reason="reading needs requirements-files.txt")

from bot.store import Store
from tests.app.test_files import KINDS
from tests.emulators.model import ModelEmulator
from tests.support.process import bot
from tests.support.web_page import new_talk, page_of
from tests.web.test_files import answered, prompt, send


@pytest.mark.parametrize("name", KINDS)
async def test_the_page_reads_a_file_and_knows_it_later(
    name: str, own_store: Store, model: ModelEmulator
) -> None:
    (data, wanted), talk, model.answer = KINDS[name], new_talk(), "Well."
    async with page_of(own_store, model) as (person, service):
        upload, _ = await send(person, data)
        turn = await answered(person, talk, "What is it?", {upload: name})
        await answered(person, talk, "And again?")

        assert (turn["answer"], turn["below"]) == ("Well.", "")
        assert f"{wanted}\n" in prompt(model, 0)[-1]
        assert prompt(model)[1] == prompt(model, 0)[-1]
        assert wanted not in prompt(model)[-1]
        assert not service.errors()


async def test_the_terminal_reads_each_kind_of_file(data_dir: Path, model: ModelEmulator) -> None:
    model.answer, lines = "Well.", ""
    for name, (data, _) in KINDS.items():
        (data_dir / name).write_bytes(data)
        lines += f"/file ~/{name}\nWhat is {name}?\n"
    lines += "And again?\n"
    async with bot(
        data_dir=data_dir, variables={"MODEL_URL": model.url}, stdin=asyncio.subprocess.PIPE
    ) as running:
        process = running.process
        assert process.stdin
        assert process.stdout
        process.stdin.write(lines.encode())
        process.stdin.close()
        async with asyncio.timeout(120):
            said = await process.stdout.read()

    assert said.decode() == "Well.\n" * (len(KINDS) + 1)
    *asked, last = ([str(one["content"]) for one in it.messages] for it in model.requests)
    for (_, wanted), shown in zip(KINDS.values(), asked, strict=True):
        assert f"{wanted}\n" in shown[-1]
        assert f"{wanted}\n" in "".join(last[:-1])
