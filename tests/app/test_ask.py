"""Questions of scripts: over an emulated model server, and as scripts with the real demo model."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path

import pytest

import bot
from bot.errors import ModelDenied, ModelError, PromptRefused
from config.settings import Settings
from tests.emulators.model import ModelEmulator
from tests.local.test_talk import alive
from tests.support.process import ROOT
from tests.support.waiting import until

COMPLETIONS = "POST /v1/chat/completions"


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: ModelEmulator) -> Path:
    """The folder of a script whose .env, and nothing else, names the emulated model."""
    for variable in fields(Settings):
        monkeypatch.delenv(variable.name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    choose(tmp_path, MODEL_URL=model.url)
    return tmp_path


def choose(folder: Path, **variables: str) -> None:
    lines = [f"{name}={value}\n" for name, value in variables.items()]
    (folder / ".env").write_text("".join(lines))


async def test_many_questions_are_asked_at_once_and_each_knows_only_itself(
    chosen: Path, model: ModelEmulator
) -> None:
    choose(chosen, MODEL_URL=model.url, SYSTEM_PROMPT="Be brief.")
    async with bot.asking() as ask:
        answers = await asyncio.gather(*(ask(f"Number {number}") for number in range(8)))

    assert answers == [f"You said: Number {number}" for number in range(8)]
    assert sorted(each.messages[1]["content"] for each in model.requests) == [
        f"Number {number}" for number in range(8)
    ]
    assert all(each.messages[0]["content"] == "Be brief." for each in model.requests)
    assert all(len(each.messages) == 2 for each in model.requests)


async def test_a_cut_answer_is_returned_and_the_log_says_that_it_is_cut(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    choose(chosen, MODEL_URL=model.url, MAX_TOKENS="3")
    model.answer = "one two three four five six"
    async with bot.asking() as ask:
        said = await ask("Count.")

    assert said
    assert model.answer.startswith(said)
    assert said != model.answer
    assert [each.levelno for each in caplog.records if "MAX_TOKENS=3" in each.getMessage()] == [
        logging.WARNING
    ]


async def test_an_answer_that_begins_anew_is_returned_once(
    chosen: Path, model: ModelEmulator
) -> None:
    model.answer = " one two three four five \n"
    model.fail(COMPLETIONS, "drop", at_delta=2)
    async with bot.asking() as ask:
        said = await ask("Count.")

    assert said == "one two three four five"


async def test_a_fallback_is_asked_for_a_script_too(chosen: Path, model: ModelEmulator) -> None:
    model.models = ("first", "second")
    choose(chosen, MODEL_URL=model.url, MODEL_ID="first", MODEL_FALLBACKS="second")
    model.fail_as("forbidden token")
    async with bot.asking() as ask:
        said = await ask("Hello")

    assert said == "You said: Hello"
    assert model.requests[-1].body["model"] == "second"


async def test_what_a_model_refuses_is_told_as_to_an_operator(
    chosen: Path, model: ModelEmulator
) -> None:
    choose(chosen, MODEL_URL=model.url, MODEL_API_KEY="secret-key")
    model.fail_as("wrong key")
    async with bot.asking() as ask:
        with pytest.raises(ModelDenied, match="set MODEL_API_KEY") as refused:
            await ask("Hello")

    assert "secret-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MAX_TOKENS", "many", "MAX_TOKENS='many' is not a whole number"),
        ("LOCAL_MODEL_PATH", __file__, "LOCAL_MODEL_PATH="),
    ],
)
async def test_what_the_settings_do_not_allow_is_a_model_error_too(
    chosen: Path, name: str, value: str, told: str
) -> None:
    choose(chosen, **{name: value})

    with pytest.raises(ModelError) as failed:
        async with bot.asking():
            pass

    assert str(failed.value).startswith(told)


async def test_no_question_is_refused(chosen: Path, model: ModelEmulator) -> None:
    async with bot.asking() as ask:
        with pytest.raises(PromptRefused):
            await ask(" \n")

    assert not model.requests


async def test_a_question_that_is_too_long_loses_its_middle_and_the_log_says_so(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    choose(chosen, MODEL_URL=model.url, CONTEXT_TOKENS="300", MAX_TOKENS="100")
    async with bot.asking() as ask:
        said = await ask("start " + "middle " * 2000 + "end")

    assert "[…]" in said
    assert any("of its middle were not read" in each.getMessage() for each in caplog.records)


async def test_bytes_that_are_no_text_are_asked_all_the_same(
    chosen: Path, model: ModelEmulator
) -> None:
    async with bot.asking() as ask:
        said = await ask("caf\udce9")  # as Python reads what is no UTF-8

    assert said == "You said: caf\ufffd"


async def test_who_is_cancelled_hangs_up(chosen: Path, model: ModelEmulator) -> None:
    model.first_delay = 60
    async with bot.asking() as ask:
        asked = asyncio.ensure_future(ask("Hello"))
        await until(lambda: model.running)
        asked.cancel()
        await until(lambda: not model.running, within=10)

    assert asked.cancelled()


@asynccontextmanager
async def script(
    text: str, folder: Path, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a script with these variables and no others; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", text),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)} | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(120):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def outcome(text: str, folder: Path, **variables: str) -> str:
    """Return what a script prints, which is to end well and to complain of nothing."""
    async with script(text, folder, **variables) as process:
        printed, complaints = await process.communicate()
    assert complaints.decode() == ""
    assert process.returncode == 0
    return printed.decode()


async def test_importing_the_package_imports_nothing_dear(tmp_path: Path) -> None:
    text = "import sys, bot; print(sorted({'asyncio', 'aiohttp', 'config'} & set(sys.modules)))"

    assert await outcome(text, tmp_path) == "[]\n"


# Tells how many answers were right, and then the process id of each server that runs.
DEMO = """
import asyncio, os, subprocess, threading, bot

answers = []
threads = [
    threading.Thread(target=lambda: answers.append(bot.ask("What is the capital of France?")))
    for _ in range(3)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

async def main():
    answers.append(bot.ask("What is the capital of France?"))  # blocks the loop, as in a notebook
    answers.append(await bot.ask_async("What is the capital of France?"))

asyncio.run(main())
print(sum("Paris" in answer for answer in answers))
table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
for line in table.stdout.splitlines():
    pid, parent, command = line.split(None, 2)
    if int(parent) == os.getpid() and "bot.local.llama_cpp_process" in command:
        print(pid, flush=True)
"""


@pytest.mark.process
async def test_the_demo_model_is_loaded_once_for_all_threads_and_loops_and_ends_with_the_script(
    tmp_path: Path,
) -> None:
    said = await outcome(DEMO, tmp_path, MODEL_ID="demo", TEMPERATURE="0")

    right, *servers = said.split()
    assert right == "5"
    assert len(servers) == 1
    # Nobody waits for it: it was gone before the script was.
    assert not alive(int(servers[0]))


@pytest.mark.process
async def test_a_script_that_is_ended_by_a_signal_leaves_no_model(tmp_path: Path) -> None:
    text = f"{DEMO}\nimport time; time.sleep(60)"
    async with script(text, tmp_path, MODEL_ID="demo", TEMPERATURE="0") as process:
        assert process.stdout
        await process.stdout.readline()
        server = int(await process.stdout.readline())
        process.terminate()
        await process.wait()

        await until(lambda: not alive(server), within=10)


@pytest.mark.process
async def test_where_no_model_can_be_had_the_next_question_tries_anew(
    chosen: Path, model: ModelEmulator
) -> None:
    choose(chosen, MODEL_URL="nowhere")
    text = f"""
import bot, pathlib
try:
    bot.ask("Hello")
except Exception as error:
    print(type(error).__name__, error)
pathlib.Path(".env").write_text("MODEL_URL={model.url}")
print(bot.ask("Hello"))
"""

    assert await outcome(text, chosen) == (
        "ModelError MODEL_URL='nowhere' does not begin with http:// or https://\nYou said: Hello\n"
    )


@pytest.mark.process
async def test_a_forked_process_asks_by_itself(chosen: Path, model: ModelEmulator) -> None:
    text = """
import bot, os, sys
print(bot.ask("parent"), flush=True)
if os.fork() == 0:
    print(bot.ask("child"), flush=True)
    sys.exit()
_, status = os.wait()
print(bot.ask(f"parent again: {status}"))
"""

    assert await outcome(text, chosen) == (
        "You said: parent\nYou said: child\nYou said: parent again: 0\n"
    )


@pytest.mark.process
async def test_who_interrupts_a_question_hangs_up_and_can_ask_on(
    chosen: Path, model: ModelEmulator
) -> None:
    # Tests that a shell runs in the background, with `&`, inherit that SIGINT is ignored.
    text = """
import bot, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    bot.ask("Hello")
except KeyboardInterrupt:
    input()
    print(bot.ask("Again"))
"""
    model.first_delay = 60
    async with script(text, chosen) as process:
        await until(lambda: model.running)
        process.send_signal(signal.SIGINT)
        await until(lambda: not model.running)
        model.first_delay = 0
        printed, complaints = await process.communicate(b"\n")

    assert complaints.decode() == ""
    assert printed.decode() == "You said: Again\n"


@pytest.mark.process
async def test_a_script_may_end_while_a_thread_that_nobody_waits_for_asks(
    chosen: Path, model: ModelEmulator
) -> None:
    text = """
import bot, threading
threading.Thread(target=bot.ask, args=("Hello",), daemon=True).start()
input()
"""
    model.first_delay = 60
    async with script(text, chosen) as process:
        await until(lambda: model.running)
        async with asyncio.timeout(10):
            _, complaints = await process.communicate(b"\n")
        await until(lambda: not model.running, within=10)

    assert process.returncode == 0
    assert "was destroyed" not in complaints.decode()
