"""The terminal asks, shows an answer as it grows, and lets nothing drive it."""

from __future__ import annotations

import asyncio
import errno
import getpass
import io
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.console.terminal import listen
from bot.commands.handlers import FORGET_QUESTION, FORGOTTEN
from bot.errors import ParleyError, StoreUnavailable, ThreadBusy
from bot.store import Store, connect
from tests.support.console import PLAIN, AnsweringQueue, Terminal, arguments, process_of, terminal
from tests.support.stored import stored


async def piped(
    store: Store, lines: str, *, patience: float = 30.0, stdout: io.StringIO | None = None
) -> tuple[str, AnsweringQueue]:
    """What the terminal prints for these lines, and what the intake got.

    The worker is another process, almost.
    """
    url, prefix = arguments(store)
    stdout = stdout or io.StringIO()
    async with (
        connect(url=url, data_dir=Path("unused"), prefix=prefix) as others,
        asyncio.timeout(60),
    ):
        queue = AnsweringQueue(others)
        try:
            process = process_of(queue, store, patience=patience)
            await listen(process, stdin=io.StringIO(lines), stdout=stdout)
        finally:
            await queue.work_ends()
    return stdout.getvalue(), queue


async def test_piped_questions_are_answered_one_after_another_and_plainly(store: Store) -> None:
    printed, _ = await piped(store, "hello\n\n  code  \nagain")

    assert printed == "Hello `world`!\n```py\na = 1\nb = 2\n```\nDone.\nAnother one\n"


async def test_piped_questions_of_one_run_are_one_thread(store: Store) -> None:
    _, first = await piped(store, "hello\nagain\n")
    _, second = await piped(store, "hello\n")

    assert first.turns[0].key == first.turns[1].key
    assert first.turns[0].key != second.turns[0].key
    assert first.turns[0].id.startswith("console:")
    assert first.turns[0].id != first.turns[1].id


async def test_a_piped_reset_starts_anew_and_quit_ends(store: Store) -> None:
    printed, queue = await piped(store, "/reset\nhello\n/quit\nagain\n")

    assert printed == "Hello `world`!\n"
    assert queue.resets == [queue.turns[0].key]


async def test_tools_are_switched_off_and_on(store: Store) -> None:
    printed, _ = await piped(store, "/tools off\n/tools on\n/tools perhaps\n")

    assert printed.splitlines()[:2] == [
        "From now on I use no tools in this conversation.",
        "From now on I may use tools in this conversation.",
    ]
    assert "Write `off`, `on`" in printed


async def test_usage_and_commands_are_shown(store: Store) -> None:
    printed, queue = await piped(store, "/usage\n/help\n/model\n/save it\n")

    assert "Your tokens today, read and written: 1,234" in printed
    assert "/forget-me    forget everything you have said to me" in printed
    assert "Models: Fast, Clever." in printed
    # Of the window alone.
    assert "/save" not in printed
    assert [turn.text for turn in queue.turns] == ["/save it"]


async def test_a_piped_file_goes_with_the_next_question(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"in it")
    printed, queue = await piped(store, f"/file {path}\n/file {path}x\nhello\nagain\n")

    assert printed == (
        f"I cannot read {path}x: No such file or directory.\nHello `world`!\nAnother one\n"
    )
    assert [[one.name for one in turn.files] for turn in queue.turns] == [["notes.txt"], []]
    (upload,) = [one for one in await stored(store) if one.name.startswith("upload:")]
    assert upload.expires_ms > 23 * 3_600_000  # the question may wait


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("my notes.txt", "my notes.txt"),
        ("it's.txt", "it's.txt"),
        (r"my\ notes.txt", r"my\ notes.txt"),
        (r"my\ notes\ \(1\).txt", "my notes (1).txt"),
        (r"~/it\'s.txt", "it's.txt"),
        ("'my notes (1).txt'", "my notes (1).txt"),
        (r"'it'\''s.txt'", "it's.txt"),
        ('"it\'s.txt"', "it's.txt"),
    ],
)
async def test_a_path_may_be_as_it_is_or_as_a_terminal_writes_it_for_a_shell(
    typed: str, name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / name).write_text("in it")

    printed, queue = await piped(store, f"/file {typed}\nhello\n")

    assert printed == "Hello `world`!\n"
    assert [[one.name for one in turn.files] for turn in queue.turns] == [[name]]


@pytest.mark.parametrize("typed", ["it's gone.txt", r"my\ notes.txt", "'a.txt' 'b.txt'"])
async def test_a_path_that_leads_nowhere_is_told_as_it_was_typed(store: Store, typed: str) -> None:
    printed, _ = await piped(store, f"/file {typed}\n")

    assert printed == f"I cannot read {typed}: No such file or directory.\n"


async def test_who_is_sure_is_forgotten(store: Store) -> None:
    printed, asked = await piped(store, "/forget-me\n/forget-me no\n")
    told, queue = await piped(store, "/forget-me yes\n")

    assert printed == f"{FORGET_QUESTION}\nIf so, write: /forget-me yes\n" * 2
    assert asked.forgetting.people == []
    assert told == f"{FORGOTTEN}\n"
    assert len(queue.forgetting.people) == 1


async def test_a_user_whose_name_is_not_utf8_can_ask(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "caf\udce9")  # as Python reads bytes that are not UTF-8

    _, queue = await piped(store, "hello\n")

    assert queue.turns[0].person.name == "caf\ufffd"
    assert str(queue.turns[0].key)


class Full(io.StringIO):
    """A file on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_an_output_that_is_full_ends_the_conversation_with_a_sentence(store: Store) -> None:
    with pytest.raises(ParleyError, match="No space left"):
        await piped(store, "hello\n", stdout=Full())


async def test_nothing_that_a_model_says_drives_the_terminal(store: Store) -> None:
    printed, _ = await piped(store, "evil\n")

    assert printed == "[2J31mred\ndone\n"


@pytest.mark.parametrize(
    ("question", "apology"), [("busy", ThreadBusy.apology), ("away", StoreUnavailable.apology)]
)
async def test_a_question_that_is_not_taken_gets_the_apology(
    store: Store, question: str, apology: str
) -> None:
    printed, _ = await piped(store, f"{question}\nagain\n")

    assert printed == f"{apology}\nAnother one\n"


@pytest.mark.parametrize("question", ["nothing", "half"])
async def test_an_answer_that_does_not_end_in_time_gets_an_apology(
    store: Store, question: str
) -> None:
    printed, _ = await piped(store, f"{question}\n", patience=0.2)

    assert printed == f"{ParleyError.apology}\n"


@pytest.fixture
async def it(store: Store) -> AsyncIterator[Terminal]:
    """A terminal without the window."""
    async with terminal(store, PLAIN, Path("unused")) as one:
        yield one


async def test_an_answer_grows_in_place(it: Terminal) -> None:
    head = await it.until_prompt()
    it.type("hello\r")
    await it.until("bot> ")
    hello = await it.until_prompt()
    it.type("code\r")
    await it.until("bot> ")
    code = await it.until_prompt()

    assert "the banner" in head
    assert "/reset forgets it" in head
    assert hello == "Hello `world`!\n"
    assert code == "```py\na = 1\nb = 2\n```\nDone.\n"


async def test_an_answer_that_changes_is_printed_anew(it: Terminal) -> None:
    await it.until_prompt()
    it.type("again\r")
    await it.until("bot> One\n")
    answer = await it.until_prompt()

    assert answer == "bot> Another one\n"


async def test_the_terminal_always_goes_on_with_the_same_thread(it: Terminal) -> None:
    await it.until_prompt()
    it.type("hello\r")
    await it.until_prompt()
    it.type("/reset\r")
    await it.until("Forgotten. Ask me something new.")
    await it.until_prompt()
    it.type("\x04")
    await it.until("threads: ")
    threads = await it.until("resets: 1")
    status = await it.process.wait()

    assert threads.strip() == str({f"console:local:{getpass.getuser()}:terminal"})
    assert status == 0


async def test_at_a_terminal_unknown_commands_are_refused_and_exit_leaves(it: Terminal) -> None:
    await it.until_prompt()
    it.type("/save it\r")
    await it.until("There is no /save")
    await it.until_prompt()
    # A blank in front sends it.
    it.type(" /save it\r")
    await it.until("bot> ")
    await it.until_prompt()
    it.type("exit\r")
    await it.until("resets: 0")

    assert await it.process.wait() == 0


async def test_ctrl_c_stops_the_answer_and_the_conversation_goes_on(it: Terminal) -> None:
    await it.until_prompt()
    it.type("long\r")
    await it.until("On and on")
    it.type("\x03")
    await it.until("Stopped: True.\n")
    await it.until_prompt()
    it.type("/quit\r")

    assert await asyncio.wait_for(it.process.wait(), 60) == 0


async def test_a_second_ctrl_c_gives_up_an_answer_that_does_not_stop(it: Terminal) -> None:
    await it.until_prompt()
    it.type("stubborn\r")
    await it.until("On and on")
    it.type("\x03")
    await it.until("Stopped: False.")
    it.type("\x03")
    await it.until_prompt()
    it.type("/quit\r")

    await it.until("forgotten: 1")


async def test_ctrl_c_without_an_answer_ends_the_process(it: Terminal) -> None:
    await it.until_prompt()
    it.type("again\r")
    await it.until_prompt()
    it.type("\x03")
    status = await asyncio.wait_for(it.process.wait(), 60)

    assert status == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\r", "allow"),
        ("Always\r", "always"),
        ("no\r", "deny"),
        ("\x03", "deny"),
        ("\x04", "deny"),
    ],
)
async def test_a_call_is_allowed_or_denied_at_the_prompt(
    it: Terminal, typed: str, answer: str
) -> None:
    await it.until_prompt()
    it.type("ticket\r")
    before = await it.until("Allow? [y]es / [a]lways / [n]o: ")
    it.type(typed)
    await it.until(f"It is: {answer}.")
    await it.until_prompt()
    it.type("again\r")
    await it.until("Another one")

    assert before.endswith('bot> Hm.\nMay I call `ticket` with `{"title": "[2JPrinter"}`?\n')


async def test_a_form_of_a_server_is_filled_in_line_by_line(it: Terminal) -> None:
    await it.until_prompt()
    it.type("form\r")
    before = await it.until("Room[2J: ")
    it.type("five\r")
    await it.until("colour (Its walls; 1 red, 2 blue; may be empty): ")
    it.type("\r")
    await it.until("`Room[2J`: please enter a whole number.")
    await it.until("Room[2J: ")
    it.type("5\r")
    await it.until('It is: answer {"room": 5}.')
    await it.until_prompt()
    it.type("form\r")
    await it.until("Room[2J: ")
    it.type("\x03")
    await it.until("It is: deny.")

    assert before.endswith("bot> Hm.\n`tracker` asks: `Which room?`\n")


@pytest.mark.parametrize(("typed", "answer"), [("y\r", "done"), ("n\r", "deny")])
async def test_a_page_to_visit_is_confirmed_by_a_word(
    it: Terminal, typed: str, answer: str
) -> None:
    await it.until_prompt()
    it.type("visit\r")
    await it.until("Please pay. https://example.com/1")
    await it.until("Done? [y]es / [n]o: ")
    it.type("always\r")
    await it.until("Done? [y]es / [n]o: ")
    it.type(typed)
    await it.until(f"It is: {answer}.")


async def test_another_word_allows_nothing_and_is_asked_for_again(it: Terminal) -> None:
    await it.until_prompt()
    it.type("ticket\r")
    await it.until("[n]o: ")
    it.type("yes please\r")
    await it.until("[n]o: ")
    it.type("y\r")
    await it.until("It is: allow.")


async def test_what_was_typed_before_a_question_is_no_answer_to_it(it: Terminal) -> None:
    await it.until_prompt()
    # The terminal has both lines before the question is asked.
    it.type("ticket\ry\r")
    await it.until("[n]o: ")
    it.type("n\r")
    await it.until("It is: deny.")


async def test_a_question_that_nobody_answers_in_time_goes(it: Terminal) -> None:
    await it.until_prompt()
    it.type("ticket late\r")
    await it.until("[n]o: ")
    await it.until("It is: late.")
    await it.until_prompt()
    it.type("hello\r")
    await it.until("Hello `world`!")


async def test_in_a_pipe_nobody_is_asked_and_a_call_is_denied(store: Store) -> None:
    printed, _ = await piped(store, "ticket\nform\nagain\n")

    assert printed == 2 * "Hm.\n\nIt is: deny.\n" + "Another one\n"


async def test_sources_and_steps_stand_below_an_answer(store: Store) -> None:
    printed, _ = await piped(store, "sources\n")

    assert printed.splitlines()[1:] == [
        *("", "Sources:", "[1] https://example.org/", "", "(Steps: Searching: done.)")
    ]


@asynccontextmanager
async def piped_process(
    store: Store, *, stdout: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamWriter]]:
    process = await asyncio.create_subprocess_exec(
        *PLAIN,
        *arguments(store),
        "unused",
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        yield process, process.stdin
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_waits_for_a_piped_line_can_be_ended(
    store: Store, sign: signal.Signals
) -> None:
    async with piped_process(store, stdout=asyncio.subprocess.PIPE) as (process, stdin):
        stdin.write(b"again\n")
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 60)

        process.send_signal(sign)
        _, complaints = await asyncio.wait_for(process.communicate(), 60)

    assert b"Fatal" not in complaints


async def test_a_reader_that_leaves_ends_the_conversation_quietly(store: Store) -> None:
    ours, theirs = os.pipe()
    async with piped_process(store, stdout=theirs) as (process, stdin):
        os.close(theirs)
        stdin.write(b"again\n")
        first = await asyncio.wait_for(asyncio.to_thread(os.read, ours, 100), 60)

        os.close(ours)
        stdin.write(b"again\n")
        assert process.stderr is not None
        complaints = await asyncio.wait_for(process.stderr.read(), 60)
        status = await asyncio.wait_for(process.wait(), 60)

    assert first == b"Another one\n"
    assert complaints == b""
    assert status == 0
