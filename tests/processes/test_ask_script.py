"""Scripts that ask: as processes of their own, with an emulated model or the demo model."""

from __future__ import annotations

import signal
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.emulators.model import ModelEmulator
from tests.support.process import alive, python
from tests.support.waiting import until

LIMIT = 30.0  # seconds: half of what the model would take for its answer


def choose(folder: Path, url: str) -> None:
    (folder / ".env").write_text(f"MODEL_URL={url}\n")


def script(text: str, folder: Path, **variables: str) -> AbstractAsyncContextManager[Process]:
    """Run a script with these variables and no others; it is gone at the end."""
    return python("-W", "error", "-c", text, folder=folder, variables=variables)


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


async def test_who_asks_imports_neither_redis_nor_a_platform(tmp_path: Path) -> None:
    dear = "{'redis', 'discord', 'slack_bolt', 'slack_sdk'}"
    text = f"import sys, bot.app.ask; print(sorted({dear} & set(sys.modules)))"

    assert await outcome(text, tmp_path) == "[]\n"


# Tells how many answers were right, and then the process id of each server that runs.
DEMO = """
import asyncio, threading, bot
from tests.support.process import children

answers = []
threads = [
    threading.Thread(target=lambda: answers.append(bot.ask("What is the capital of France?")))
    for _ in range(2)
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
print(*children("bot.local.llama_cpp_process"), sep="\\n", flush=True)
"""


async def test_the_demo_model_is_loaded_once_for_all_threads_and_loops_and_ends_with_the_script(
    tmp_path: Path,
) -> None:
    said = await outcome(DEMO, tmp_path, MODEL_ID="demo", TEMPERATURE="0")

    right, *servers = said.split()
    assert right == "4"
    assert len(servers) == 1
    # Nobody waits for it: it was gone before the script was.
    assert not alive(int(servers[0]))


async def test_a_script_that_is_ended_by_a_signal_leaves_no_model(tmp_path: Path) -> None:
    text = """
import bot, time
from tests.support.process import children

bot.ask("What is the capital of France?")
print(*children("bot.local.llama_cpp_process"), flush=True)
time.sleep(60)
"""
    async with script(text, tmp_path, MODEL_ID="demo", TEMPERATURE="0") as process:
        assert process.stdout
        server = int(await process.stdout.readline())
        process.terminate()
        await process.wait()

        await until(lambda: not alive(server))


async def test_where_no_model_can_be_had_the_next_question_tries_anew(
    tmp_path: Path, model: ModelEmulator
) -> None:
    choose(tmp_path, "nowhere")
    text = f"""
import bot, pathlib
try:
    bot.ask("Hello")
except Exception as error:
    print(type(error).__name__, error)
pathlib.Path(".env").write_text("MODEL_URL={model.url}")
print(bot.ask("Hello"))
"""

    assert await outcome(text, tmp_path) == (
        "ModelError MODEL_URL='nowhere' does not begin with http:// or https://\nYou said: Hello\n"
    )


async def test_a_forked_process_asks_by_itself(tmp_path: Path, model: ModelEmulator) -> None:
    choose(tmp_path, model.url)
    text = """
import bot, os, sys
print(bot.ask("parent"), flush=True)
if os.fork() == 0:
    print(bot.ask("child"), flush=True)
    sys.exit()
_, status = os.wait()
print(bot.ask(f"parent again: {status}"))
"""

    assert await outcome(text, tmp_path) == (
        "You said: parent\nYou said: child\nYou said: parent again: 0\n"
    )


async def test_who_interrupts_a_question_hangs_up_and_can_ask_on(
    tmp_path: Path, model: ModelEmulator
) -> None:
    choose(tmp_path, model.url)
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
    async with script(text, tmp_path) as process:
        await until(lambda: model.running)
        process.send_signal(signal.SIGINT)
        await until(lambda: not model.running, within=LIMIT)
        model.first_delay = 0
        printed, complaints = await process.communicate(b"\n")

    assert complaints.decode() == ""
    assert printed.decode() == "You said: Again\n"
