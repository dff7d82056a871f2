"""The whole bot on a real homeserver: it answers, and does what reactions and words ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.matrix.surface import MOST_EDITS
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended
from tests.support.process import model_variables
from tests.support.service import starting
from tests.support.synapse import Member, Shown, Synapse, eventually
from tests.support.tool_servers import QUESTION, STEP, TICKET, Office, answers


@dataclass
class Talk:
    """Ann in a room with the bot, which runs."""

    ann: Member
    bot: Member
    room: str

    async def ask(self, text: str, *, thread: str = "") -> str:
        return await self.ann.say(self.room, text, to=[self.bot], thread=thread)

    async def shows(self, *texts: str) -> list[Shown]:
        """Wait until the bot's last messages are these."""
        wanted = list(texts)
        found = await self.ann.sees(
            self.room, lambda it: [one.text for one in it][-len(wanted) :] == wanted, of=self.bot
        )
        return found[-len(wanted) :]


@asynccontextmanager
async def talking(
    synapse: Synapse,
    store: Store,
    model: ModelEmulator,
    more: Mapping[str, str] = {},
    *,
    direct: bool = False,
) -> AsyncIterator[Talk]:
    ann, bot = await synapse.person("ann"), await synapse.person("parley")
    variables = {
        **model_variables(model),
        "MATRIX_HOMESERVER": synapse.url,
        "MATRIX_TOKEN": bot.token,
        **more,
    }
    async with starting(store, "matrix", "worker", variables=variables) as service:
        room = await ann.create_room(bot, direct=direct, name="" if direct else "Rain")
        try:
            await wait_for(ann, room, bot)
            yield Talk(ann, bot, room)
        finally:
            print(service.text())
        assert service.errors() == []


async def wait_for(ann: Member, room: str, bot: Member) -> None:
    async def is_there() -> bool:
        return (await ann.members(room)).get(bot.user_id) == "join"

    await eventually(is_there)


@pytest.mark.parametrize("direct", [False, True], ids=["room", "direct"])
async def test_a_question_is_answered_and_answered_again(
    synapse: Synapse, own_store: Store, model: ModelEmulator, *, direct: bool
) -> None:
    model.answer = "Because **of** rain."
    async with talking(synapse, own_store, model, direct=direct) as talk:
        asked = await talk.ask("why?")
        await talk.shows("Because **of** rain.")
        await all_ended(own_store)
        (first,) = await talk.shows("Because **of** rain.")
        model.answer = "Because of the sun."
        await talk.ann.react(talk.room, first.id, "🔁")
        (second,) = await talk.shows("Because of the sun.")

        assert second.id == first.id
        assert first.thread == ("" if direct else asked)
        assert second.edits - first.edits <= 2  # a beginning and the end


async def test_an_answer_grows_and_is_stopped(
    synapse: Synapse, own_store: Store, model: ModelEmulator
) -> None:
    model.answer, model.delay = " ".join(f"word{number}" for number in range(3000)), 0.1
    async with talking(synapse, own_store, model) as talk:
        await talk.ask("why?")
        (growing,) = await talk.ann.sees(talk.room, lambda it: it and it[-1].edits > 1, of=talk.bot)
        await talk.ann.react(talk.room, growing.id, "⏹️")
        (ended,) = await talk.ann.sees(
            talk.room, lambda it: it[-1].text.endswith("(Stopped.)"), of=talk.bot
        )

        assert ended.text.startswith("word0 word1")
        assert ended.edits <= MOST_EDITS


async def test_help_is_a_notice_and_no_bot_answers_one(
    synapse: Synapse, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(synapse, own_store, model, direct=True) as talk:
        await talk.ann.say(talk.room, "!parley help")
        (notice,) = await talk.ann.sees(talk.room, lambda it: it, of=talk.bot)

        assert notice.kind == "m.notice"
        assert "`!parley model`" in notice.text
        await talk.ann.say(talk.room, notice.text, msgtype="m.notice")
        model.answer = "Because."
        await talk.ask("why?")
        await talk.shows("Because.")
        assert len(model.requests) == 1


class TestTools:
    @pytest.fixture(autouse=True)
    def needs_servers(self) -> None:
        pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")

    @pytest.mark.parametrize("way", ["✅", "!parley allow", "!parley always"])
    async def test_a_ticket_is_made_once_after_it_is_allowed(
        self, synapse: Synapse, own_store: Store, model: ModelEmulator, tmp_path: Path, way: str
    ) -> None:
        office, model.calling = Office(), model.models
        answers(model, TICKET, "It is done.")
        async with (
            office.serving(tmp_path) as variables,
            talking(synapse, own_store, model, variables) as talk,
        ):
            asked = await talk.ask("Make a ticket.")
            found = await talk.ann.sees(talk.room, lambda it: len(it) > 1, of=talk.bot)
            page, how = found
            assert page.text == f"Let me see.\n\n{QUESTION}"
            assert office.made == []
            if way == "✅":
                await talk.ann.react(talk.room, how.id, way)
            else:
                await talk.ann.say(talk.room, way, thread=asked)
            done = f"Let me see.\n\nIt is done.\n\n(Steps: {STEP}: done.)"
            found = await talk.ann.sees(
                talk.room, lambda it: it[0].text == done and how.id not in str(it), of=talk.bot
            )

            assert office.made == ["Printer"]
            assert json.dumps([one.kind for one in found]).count("m.text") == 1
