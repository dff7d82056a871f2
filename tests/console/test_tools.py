"""The whole bot uses tools at a terminal: it searches, remembers, and asks first.

Nobody else sits there: who answers is always the person who asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")
pytest.importorskip("prompt_toolkit", reason="the window needs requirements-terminal.txt")
pytest.importorskip("rich", reason="the window needs requirements-terminal.txt")

from bot.store import Store
from tests.emulators.model import Calls, ModelEmulator
from tests.support.console import Terminal, at_pty
from tests.support.process import PROCESS_LEASE, ROOT, model_variables
from tests.support.tool_servers import SEARCH, TICKET, Office, Search, answers, results
from tests.support.waiting import until

ASKS = "es / [a]lways / [n]o"
STEPS = ": {outcome}.)"  # behind a name in bold


@asynccontextmanager
async def at_terminal(
    store: Store, data_dir: Path, model: ModelEmulator, **variables: str
) -> AsyncIterator[Terminal]:
    """Run the bot at a terminal that is wide enough for each line."""
    chosen = {
        "PATH": os.environ["PATH"],
        "HOME": str(data_dir),
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(data_dir),
        "REDIS_URL": store.url,
        "PORT": "0",
        "LEASE_SECONDS": str(PROCESS_LEASE),
        "TERM": "xterm",
        "COLUMNS": "200",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "NO_COLOR": "1",
        **model_variables(model),
        **variables,
    }
    command = (sys.executable, "-m", "bot", "run", "console", "worker")
    async with at_pty(*command, env=chosen, folder=data_dir) as it:
        await it.until("/help shows the commands")
        yield it


async def test_a_question_that_needs_a_search_is_answered_with_numbered_sources(
    own_store: Store, data_dir: Path, model: ModelEmulator
) -> None:
    search = Search()
    answers(model, SEARCH, "It is so [1], and [3] agrees.")
    async with (
        search.serving() as variables,
        at_terminal(own_store, data_dir, model, **variables) as it,
    ):
        it.type("Who won?\r")
        await it.until("Searching the web")
        search.may.set()
        await it.until("It is so [1], and [3] agrees.")
        await it.until("Sources:")
        await it.until("[1] https://example.org/1")
        await it.until("[3] https://example.org/3")
        await it.until("(Steps: Searching the web: done.)")
    assert search.queries == ["who won"]


async def test_the_beginning_of_a_conversation_is_known_that_no_prompt_has_room_for(
    own_store: Store, data_dir: Path, model: ModelEmulator
) -> None:
    model.answer = "word " * 150 + "End."
    limits = {"CONTEXT_TOKENS": "2000", "MAX_TOKENS": "500", "TOOLS": "on"}
    async with at_terminal(own_store, data_dir, model, **limits) as it:
        questions = ["My cat is called Mia.", *(f"{n} " + "word " * 150 for n in range(5))]
        for number, text in enumerate(questions, 1):
            it.type(f"{text}\r")
            # The window may draw the end of the answer before once more.
            await until(lambda: len(model.requests) == number)  # noqa: B023
            await it.until("End.")
        answers(model, Calls([("read_earlier_messages", '{"page": 99}')]), "{result}")
        before = len(model.requests)
        it.type("What is she called?\r")
        await it.until("(Steps: Reading earlier messages: done.)")

    first, second = [one.messages for one in model.requests[before:]]
    assert "Mia" not in str(first)
    assert "My cat is called Mia." in results(second)[0]


@pytest.mark.parametrize(
    ("typed", "outcome"), [("y\r", "done"), ("n\r", "denied"), ("", "not allowed in time")]
)
async def test_a_ticket_is_made_once_after_allow_and_never_after_deny_or_silence(
    typed: str,
    outcome: str,
    own_store: Store,
    data_dir: Path,
    model: ModelEmulator,
    tmp_path: Path,
) -> None:
    office, seconds = Office(), "300" if typed else "1"
    answers(model, TICKET, "So it is.")
    async with (
        office.serving(tmp_path) as variables,
        at_terminal(own_store, data_dir, model, CONSENT_SECONDS=seconds, **variables) as it,
    ):
        it.type("Make a ticket.\r")
        if typed:
            await it.until("May I call")
            await it.until(ASKS)
            assert not office.made
            it.type(typed)
        await it.until("So it is.")
        await it.until(STEPS.format(outcome=outcome))

    assert office.made == ["Printer"] * (outcome == "done")


async def test_what_is_allowed_always_is_asked_for_again_once_it_is_revoked_or_changed(
    own_store: Store, data_dir: Path, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "So it is.")
    async with (
        office.serving(tmp_path) as variables,
        at_terminal(own_store, data_dir, model, **variables) as it,
    ):
        it.type("Make a ticket.\r")
        await it.until(ASKS)
        it.type("always\r")
        await it.until(STEPS.format(outcome="done"))
        it.type("And another.\r")
        assert ASKS not in await it.until(STEPS.format(outcome="done"))
        it.type("/tools revoke office/create_ticket\r")
        await it.until("I will ask you again before I use")
        it.type("And another.\r")
        await it.until(ASKS)
        it.type("always\r")
        await it.until(STEPS.format(outcome="done"))

    office.description = "Make a ticket, and send it to everybody."
    async with (
        office.serving(tmp_path) as variables,
        at_terminal(own_store, data_dir, model, **variables) as it,
    ):
        it.type("And another.\r")
        await it.until(ASKS)
        it.type("n\r")
        await it.until(STEPS.format(outcome="denied"))

    assert office.made == ["Printer"] * 3


async def test_a_question_that_waits_to_be_allowed_survives_the_end_of_the_process(
    own_store: Store, data_dir: Path, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "So it is.")
    async with office.serving(tmp_path) as variables:
        async with at_terminal(own_store, data_dir, model, **variables) as it:
            it.type("Make a ticket.\r")
            await it.until(ASKS)
            it.process.kill()
        async with at_terminal(own_store, data_dir, model, **variables) as it:
            await it.until(ASKS)
            it.type("y\r")
            await it.until("So it is.")
            await it.until(STEPS.format(outcome="done"))

    assert office.made == ["Printer"]
    assert len(model.requests) == 2
