"""The whole bot passes on what a server of tools asks, in Discord and Slack."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ElicitRequest, ElicitRequestURLParams, InputRequiredResult
from pydantic import BaseModel, Field

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.asked_first import THREADS, Asker, asking, at_office, platform_of
from tests.support.mcp_server import serving
from tests.support.process import InDiscord, Way
from tests.support.rooms import served
from tests.support.tool_servers import KINDS, STEP, TICKET, answers, results, servers_file
from tests.support.waiting import until

ASKS = "`office` asks: `Which room?` (Never answer with a password.)"
ASKED = f"Let me see.\n\n{ASKS}"


class Room(BaseModel):
    number: int = Field(title="Room")
    colour: Literal["red", "blue"] = Field(title="Colour")


async def which() -> Elicit[Room]:
    return Elicit("Which room?", Room)


@dataclass
class Office:
    """An MCP server of tickets, which asks in which room they are."""

    made: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[dict[str, str]]:
        server = MCPServer("office")

        @server.tool()
        def create_ticket(title: str, room: Annotated[Room, Resolve(which)]) -> str:
            self.made.append(f"{title}, room {room.number}, {room.colour}")
            return self.made[-1]

        async with serving(server.streamable_http_app()) as url:
            yield servers_file(folder, url, {"create_ticket": KINDS["create_ticket"]})


async def until_server_asks(ann: Asker) -> None:
    await until(lambda: ann.labels() == ("Answer", "Deny"), why=ann.why)


async def fill_in(ann: Asker, **values: Any) -> None:
    """Press Answer, and send the form that opens."""
    way, shown = ann.way, ann.last()
    assert shown
    if isinstance(way, InDiscord):
        pressed = await way.discord.click(shown.id, way.person, shown.buttons[0])  # type: ignore[union-attr]
        await until(lambda: way.discord.modal(pressed), why=ann.why)
        chosen = {name: [it] if name == "field1" else it for name, it in values.items()}
        await way.discord.submit(pressed, **chosen)
    else:
        await ann.press("Answer")
        await way.slack.submit(way.person, **values)


@THREADS
async def test_what_a_server_asks_is_answered_by_a_form_even_after_a_restart(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is done.")
    async with platform_of(window) as platform, office.serving(tmp_path) as variables:
        async with served(platform, own_store, model, variables=variables) as service:
            ann = Asker(platform, window, model, service)
            await ann.ask("Make a ticket.")
            await ann.until_asked()
            await ann.press("Allow")
            await until_server_asks(ann)
            asked, made = ann.text(), list(office.made)
        async with served(platform, own_store, model, variables=variables) as ann.service:
            await fill_in(ann, field0="4711", field1="2")
            answer = await ann.answered()
            log = ann.service.text()

    assert (asked, made) == (ASKED, [])
    assert office.made == ["Printer, room 4711, blue"]
    assert answer == f"Let me see.\n\nIt is done.\n\n(Steps: {STEP}: done.)"
    assert "room 4711, blue" in results(model.requests[-1].messages)[0]
    assert len(model.requests) == 2
    assert "4711" not in log


@THREADS
async def test_a_wrong_value_can_be_mended_and_a_denial_sends_nothing(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is not done.")
    async with at_office(window, own_store, model, tmp_path, office) as ann:
        await ann.ask("Make a ticket.")
        await ann.until_asked()
        await ann.press("Allow")
        await until_server_asks(ann)
        await fill_in(ann, field0="five", field1="1")
        still = ann.labels()
        await ann.press("Deny")
        answer = await ann.answered()

    assert still == ("Answer", "Deny")
    assert not office.made
    assert answer == f"Let me see.\n\nIt is not done.\n\n(Steps: {STEP}: denied.)"


@THREADS
async def test_a_page_to_visit_is_one_address_without_a_preview(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    server, paid = MCPServer("office"), list[str]()
    page = ElicitRequestURLParams(
        message="Please pay.", url="https://pay.example.com/a_b_c?d=1&e=2"
    )

    @server.tool()
    def create_ticket(title: str, context: Context) -> str | InputRequiredResult:
        if context.input_responses is None:
            return InputRequiredResult(input_requests={"pay": ElicitRequest(params=page)})
        paid.append(title)
        return "Made."

    answers(model, TICKET, "It is done.")
    async with serving(server.streamable_http_app()) as url:
        variables = servers_file(tmp_path, url, {"create_ticket": "reads"})
        async with asking(window, own_store, model, **variables) as ann:
            await ann.ask("Make a ticket.")
            await until(lambda: ann.labels() == ("Done", "Deny"), why=ann.why)
            text = re.sub(r"\n{2,}", "\n\n", ann.text())  # Slack's blocks are apart, too
            await ann.press("Done")
            await ann.answered()

    assert text == (
        "Let me see.\n\n`office` asks you to open a page of `pay.example.com`: `Please pay.` "
        "https://pay.example.com/a_b_c?d=1&e=2"
    )
    assert paid == ["Printer"]
