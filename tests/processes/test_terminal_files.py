"""Files at the terminal of a process: pictures, kinds that are not read, and a slow reading."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.console import at_pty
from tests.support.pictures import png
from tests.support.process import ROOT, bot, model_variables
from tests.support.talk import describes

CAT = png(9, 9)


async def said(data_dir: Path, model: ModelEmulator, *lines: str) -> str:
    """Return what the bot prints for these lines of a pipe."""
    variables = model_variables(model)
    async with bot(data_dir=data_dir, variables=variables, stdin=PIPE) as running:
        stdin, stdout = running.process.stdin, running.process.stdout
        assert stdin
        assert stdout
        stdin.write("".join(f"{line}\n" for line in lines).encode())
        stdin.close()
        async with asyncio.timeout(60):
            return (await stdout.read()).decode()


async def test_a_picture_is_seen_and_known_later(data_dir: Path, model: ModelEmulator) -> None:
    model.seeing = model.models
    model.answer = lambda messages: "A grey cat." if describes(messages) else "Well."
    (data_dir / "cat.png").write_bytes(CAT)

    printed = await said(data_dir, model, "/file ~/cat.png", "What is it?", "And again?")

    asked, _, later = model.requests
    assert printed == "Well.\nWell.\n"
    assert asked.pictures == [("image/png", CAT)]
    assert later.pictures == []
    assert "| A picture, which shows: A grey cat.\n" in str(later.messages[1]["content"])


async def test_kinds_that_are_not_read_are_told_in_one_line(
    data_dir: Path, model: ModelEmulator
) -> None:
    model.answer, packed = "Well.", io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("notes.txt", "in it")
    (data_dir / "a.zip").write_bytes(packed.getvalue())
    (data_dir / "voice.ogg").write_bytes(b"OggS\0")

    printed = await said(data_dir, model, "/file ~/a.zip", "/file ~/voice.ogg", "What is it?")

    assert printed == (
        "Well.\n\n(I cannot read `a.zip`, `voice.ogg`: "
        "I read text, PDF, DOCX, PPTX, XLSX and pictures.)\n"
    )


async def test_the_window_tells_what_is_read_while_that_takes_long(
    own_store: Store, data_dir: Path, model: ModelEmulator
) -> None:
    model.answer = "Well."
    (data_dir / "notes.txt").write_text("in it")
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(data_dir),
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(data_dir),
        "REDIS_URL": own_store.url,
        "PORT": "0",
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "NO_COLOR": "1",
        **model_variables(model),
    }
    command = (sys.executable, "-m", "bot", "run", "console", "worker")
    async with at_pty(*command, env=variables, folder=data_dir) as it:
        await it.until("/help shows the commands")
        it.type("/file ~/notes.txt\r")
        await it.until("For your next question: notes.txt.")
        (key,) = await own_store.command("KEYS", own_store.key("upload", "*"))
        # What cannot be read is tried again.
        await own_store.command("RENAME", key, f"{key}-away")
        await own_store.command("RPUSH", key, "no text")
        it.type("What is it?\r")
        await it.until("(Reading")
        await it.until("notes.txt")
        await own_store.command("RENAME", f"{key}-away", key)
        await it.until("Well.")
        it.type("\x04")
        status = await asyncio.wait_for(it.process.wait(), 60)

    assert status == 0
    assert "| in it\n" in str(model.requests[-1].messages[-1]["content"])
