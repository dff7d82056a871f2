"""What a newcomer has, tokens and nothing else: each feature works once in each window.

MODEL_ID is unset, so Mistral answers through Hugging Face's router.
"""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import close_session

from bot.app import assistant
from bot.domain import Json
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import Asked, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import discord_variables, slack_variables
from tests.support.rooms import PLATFORMS, Platform, Room, asked, last_word, system, until_open
from tests.support.service import Service, serving, starting
from tests.support.settings import settings_of
from tests.support.waiting import until
from tests.support.web_page import address_of, browser, new_talk
from tests.web.test_titles import asks_for_title

PERSONA = "Speak like a pirate."
MODEL = "mistralai/Mistral-7B-Instruct-v0.3"


@dataclass
class Newcomer:
    """Somebody with an account at Hugging Face, whose router answers with the last word."""

    store: Store
    router: ModelEmulator
    folder: Path

    def variables(self, **tokens: str) -> dict[str, str]:
        return {"HF_TOKEN": "hf_newcomer", "DATA_DIR": str(self.folder), **tokens}

    @asynccontextmanager
    async def serving(self, *roles: str, **tokens: str) -> AsyncIterator[Service]:
        async with serving(self.store, *roles, variables=self.variables(**tokens)) as service:
            yield service
        assert not service.errors()

    @asynccontextmanager
    async def platform(self, kind: type[Platform]) -> AsyncIterator[Platform]:
        async with kind() as platform:
            if isinstance(platform, DiscordEmulator):
                tokens = discord_variables(platform)
            else:
                tokens = slack_variables(platform)
            async with self.serving(**tokens) as service:
                await until(platform.connected.is_set, why=service.text)
                yield platform

    @asynccontextmanager
    async def room(self, kind: type[Platform], text: str = "Ideas?") -> AsyncIterator[Room]:
        async with self.platform(kind) as platform:
            room = Room(platform)
            await room.begin(text)
            yield room

    async def answered(self, room: Room, question: str) -> str:
        """Ask in a room until the answer is through; return it."""
        before = len(room.answers())
        await room.call(question)
        await until(lambda: len(room.answers()) > before, why=room.answers)
        await until_open(self.store, 0)
        return room.answers()[-1]


@pytest.fixture
async def newcomer(
    own_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Newcomer]:
    for name in ("https_proxy", "HTTPS_PROXY"):
        # Nobody listens there: huggingface.co itself is out of reach.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    close_session()  # one from before would know no proxy
    async with ModelEmulator(flavour="router") as router:
        router.answer, router.api_key = last_word, "hf_newcomer"
        router.models, router.providers = (MODEL,), {"emulated": "live"}
        monkeypatch.setattr(assistant, "ROUTER", router.url)
        yield Newcomer(own_store, router, tmp_path)
        assert {one.body["model"] for one in router.requests} == {MODEL}


async def in_room(kind: type[Platform], newcomer: Newcomer) -> tuple[str, str]:
    async with newcomer.room(kind) as room:
        await room.command("persona", text=PERSONA)
        return await newcomer.answered(room, "why now?"), system(newcomer.router)


async def in_discord(newcomer: Newcomer) -> tuple[str, str]:
    return await in_room(DiscordEmulator, newcomer)


async def in_slack(newcomer: Newcomer) -> tuple[str, str]:
    return await in_room(SlackEmulator, newcomer)


async def in_page(newcomer: Newcomer) -> tuple[str, str]:
    talk = new_talk()
    async with (
        newcomer.serving("web", "worker", WEB_PORT="0") as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        await person.send("PATCH", "/api/preferences", {"persona": PERSONA})
        name = await person.ask(talk, "why now?")
        await until(lambda: screen.is_done(name), why=screen.__str__)
        return screen.answer(name), questions(newcomer.router)[-1].messages[0]["content"]


def questions(router: ModelEmulator) -> list[Asked]:
    """Return the requests that are not for a title, which comes at a time of its own."""
    return [one for one in router.requests if not asks_for_title(one.messages)]


async def in_terminal(newcomer: Newcomer) -> tuple[str, str]:
    printed = await typed(newcomer, f"/persona {PERSONA}\nwhy now?\n")
    return printed.splitlines()[-1], system(newcomer.router)


async def typed(newcomer: Newcomer, lines: str) -> str:
    """Pipe lines to the terminal; return what it prints."""
    stdout = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(lines))
        patch.setattr(sys, "stdout", stdout)
        variables = newcomer.variables()
        async with starting(newcomer.store, "console", "worker", variables=variables) as service:
            await until(service.task.done, why=lambda: service.text() + stdout.getvalue())
    assert not service.errors()
    return stdout.getvalue()


def test_the_model_of_a_newcomer_is_the_one_that_is_tested() -> None:
    assert settings_of().model_id == MODEL


@pytest.mark.parametrize("ask", [in_discord, in_slack, in_page, in_terminal])
async def test_a_question_is_answered_with_a_persona_in_every_window(
    ask: Callable[[Newcomer], object], newcomer: Newcomer
) -> None:
    answer, prompt = await ask(newcomer)  # type: ignore[misc]

    assert answer == "now?"
    assert PERSONA in prompt


@PLATFORMS
async def test_parameters_of_a_thread_reach_the_model(
    kind: type[Platform], newcomer: Newcomer
) -> None:
    filled = {"temperature": "0.5", "max_tokens": "7"}
    async with newcomer.room(kind) as room:
        platform, ann = room.platform, room.people["Ann"]
        before = await newcomer.answered(room, "one")
        await room.command("settings")
        if isinstance(platform, DiscordEmulator):
            used = await platform.slash(room.thread, ann, "parley settings")
            await until(lambda: platform.original(used))
            shown = platform.original(used)
            assert shown
            pressed = await platform.click(shown.id, ann, "settings:thread:answers")
            await until(lambda: platform.modal(pressed))
            sent = await platform.submit(pressed, **filled)
            await until(lambda: platform.original(sent))
        else:
            await platform.press(platform.ephemerals[-1], "open_form:thread:answers")
            await until(lambda: (form := platform.modal(ann)) and form.fields)
            await platform.submit(ann, **filled)

        after = await newcomer.answered(room, "two")

    assert (before, after) == ("one", "two")
    chosen = [
        (it.body.get("temperature"), it.body["max_tokens"]) for it in newcomer.router.requests
    ]
    assert chosen == [(None, settings_of().max_tokens), (0.5, 7)]


async def test_the_page_regenerates_continues_and_takes_parameters(newcomer: Newcomer) -> None:
    router, talk = newcomer.router, new_talk()
    router.answer = "One."
    parameters: dict[str, Json] = {"temperature": "0.5", "max_tokens": "7"}
    async with (
        newcomer.serving("web", "worker", WEB_PORT="0") as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        name = await person.ask(talk, "Count.")
        await until(lambda: screen.is_done(name), why=screen.__str__)
        await person.send("PATCH", f"/api/conversations/{talk}/preferences", parameters)
        router.answer, router.finish_reason = "One, two,", "length"
        _, told = await person.press(talk, name, "regenerate")
        name = told["turn"]
        await until(lambda: screen.turn(name).get("end") == "cut", why=screen.__str__)
        router.answer, router.finish_reason = "three.", "stop"
        _, told = await person.press(talk, name, "continue", id="go-on-press")
        await until(lambda: screen.is_done(told["turn"]), why=screen.__str__)
        _, told = await person.get("/api/help")

    assert [screen.answer(each) for each in screen.turns] == ["One, two,", "three."]
    assert [it.body.get("temperature") for it in questions(router)] == [None, 0.5, 0.5]
    assert "3" in told["usage"]


async def test_the_terminal_obeys_its_commands(newcomer: Newcomer) -> None:
    lines = "one\n/temperature 0.5\ntwo\n/usage\n/help\n/model\n/reset\nthree\n"

    printed = await typed(newcomer, lines)

    assert all(word in printed for word in ("one", "two", "three", "/forget-me"))
    assert [it.body.get("temperature") for it in newcomer.router.requests] == [None, 0.5, 0.5]
    assert asked(newcomer.router) == ["three"]
