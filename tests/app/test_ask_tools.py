"""Single questions use tools: those that read at once, others only if they are allowed."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.app import ask
from bot.app.ask import Asking, print_answer
from bot.app.assistant import Assistant
from bot.domain import Start
from bot.text.prompt import SystemPrompt
from bot.tools.questions import ToolAsks, form_question
from bot.tools.toolset import Found, ToolSource
from config.settings import Settings
from tests.support.asking import Rounds, Search
from tests.support.tools import CallingModel, FakeTool, call

FOUND = [Found(one, f"https://example.org/{one}", "...") for one in ("one", "two")]
STEP = "Calling `make_ticket` on `tracker`: "


def assistant(rounds: Rounds, *tools: ToolSource) -> Assistant:
    prompt = SystemPrompt("Be brief.", adds_line=False)
    return Assistant(CallingModel(rounds), "calling", prompt, Settings(), tools)


def steps(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "bot.app.ask"]


@pytest.mark.parametrize(("allow", "outcome"), [(True, "done"), (False, "denied")])
async def test_effects_are_denied_unless_they_are_allowed(
    caplog: pytest.LogCaptureFixture, allow: bool, outcome: str
) -> None:
    caplog.set_level(logging.INFO)
    tool, search = FakeTool(), Search(found=FOUND)
    rounds: Rounds = ([call("search", "{}")], ["Well.", call()], ["So."])
    said = await Asking(assistant(rounds, tool, search))("Make a ticket.", allow=allow)

    # Also after a stranger's text, since nobody can be asked.
    assert [arguments for arguments, _ in tool.runs] == [{"title": "Printer"}] * allow
    assert len(search.runs) == 1
    assert steps(caplog) == ["Searching the web: done", STEP + outcome]
    assert said.startswith("Well.\n\nSo.\n\nSources:\n")


async def test_a_question_of_a_server_is_denied_whatever_is_allowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    asks = ToolAsks("1", [form_question("k", "Which?", {"properties": {"it": {"type": "string"}}})])
    tool = FakeTool(asks=[asks])
    await Asking(assistant(([call()], ["So."]), tool))("Make a ticket.", allow=True)

    assert (len(tool.runs), tool.answered) == (1, [])
    assert steps(caplog) == [STEP + "denied"]


async def test_the_sources_that_an_answer_names_stand_below_it() -> None:
    rounds: Rounds = ([call("search", "{}")], ["Never.", Start(""), "It is so [2]."])
    asked = Asking(assistant(rounds, Search(found=FOUND)))
    whole = await asked("Is it so?")
    growing = [text async for text in asked.stream("Is it so?")]

    assert whole == "It is so [2].\n\nSources:\n[2] https://example.org/two"
    assert growing[-1] == whole


async def test_each_question_has_keys_of_its_own() -> None:
    tool = FakeTool(kind="keyed")
    asked = Asking(assistant(([call()], ["So."]), tool))
    for _ in range(2):
        await asked("Make a ticket.", allow=True)

    assert len({key for _, key in tool.runs}) == 2


async def test_a_source_that_offers_nothing_leaves_the_question_to_the_model() -> None:
    class Nothing:
        async def offered(self, asked: object) -> Sequence[Any]:
            raise OSError("away")

    assert await Asking(assistant((["So."],), Nothing()))("Is it so?") == "So."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("at", [Terminal, io.StringIO])
async def test_the_command_prints_the_answer_and_tells_the_steps_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: type[io.StringIO]
) -> None:
    caplog.set_level(logging.INFO)
    tool = FakeTool()

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Assistant]:
        yield assistant((["Well.", call()], ["So."]), tool)

    monkeypatch.setattr(ask, "open_assistant", opened)
    printed = at()
    await print_answer(Settings(), "Make a ticket.", printed, allow=True)

    assert printed.getvalue().split() == ["Well.", "So."]
    assert steps(caplog) == [STEP + "done"]
    assert len(tool.runs) == 1
