"""The whole bot uses tools in Discord and Slack: it searches, remembers, and asks first."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")

from bot.intake.answers import NOT_YOURS
from bot.store import Store
from tests.emulators.model import Calls, ModelEmulator
from tests.support.asked_first import LABELS, THREADS, Asker, asking, at_office, platform_of
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
)
from tests.support.rooms import served
from tests.support.tool_servers import (
    NOTES,
    QUESTION,
    SEARCH,
    STEP,
    TICKET,
    Office,
    Search,
    answers,
    results,
)
from tests.support.waiting import until

windows = pytest.mark.parametrize(
    "window",
    [DiscordMention, DiscordDm, DiscordSlash, SlackMention, SlackDm, SlackSlash],
    ids=lambda one: one.__name__,
)


@windows
async def test_a_question_that_needs_a_search_is_answered_with_numbered_sources(
    window: type[Way], own_store: Store, model: ModelEmulator
) -> None:
    search = Search()
    answers(model, SEARCH, "It is so [1], and [3] agrees.")
    async with search.serving() as variables, asking(window, own_store, model, **variables) as ann:
        await ann.ask("Who won?")
        await until(lambda: ann.shows_work("Searching the web"), why=ann.why)
        search.may.set()
        answer = await ann.answered()

        assert search.queries == ["who won"]
        (found,) = results(model.requests[-1].messages)
        assert [f"[{n}] Page {n}\n| https://example.org/{n}" in found for n in (1, 2, 3)] == [
            True
        ] * 3
        steps = "\n\n(Steps: Searching the web: done.)"
        assert answer.removesuffix(steps) == (
            "It is so [1], and [3] agrees.\n\n"
            "Sources:\n[1] https://example.org/1\n[3] https://example.org/3"
        )
        # A stream of Slack has a card instead.
        cards = getattr(ann.last(), "cards", ())
        assert cards == (() if answer.endswith(steps) else (("Searching the web", "complete"),))


@THREADS
async def test_the_beginning_of_a_thread_is_known_that_no_prompt_has_room_for(
    window: type[Way], own_store: Store, model: ModelEmulator
) -> None:
    model.answer = "word " * 150
    limits = {"CONTEXT_TOKENS": "2000", "MAX_TOKENS": "500", "TOOLS": "on"}
    async with asking(window, own_store, model, **limits) as ann:
        await ann.ask("My cat is called Mia.")
        await ann.answered()
        for number in range(5):
            await ann.ask(f"{number} " + "word " * 150)
            await ann.answered()
        answers(model, Calls([("read_earlier_messages", '{"page": 99}')]), "{result}")
        before = len(model.requests)

        await ann.ask("What is she called?")
        answer = await ann.answered()

        first, second = [one.messages for one in model.requests[before:]]
        assert "Mia" not in str(first)
        (found,) = results(second)
        assert "My cat is called Mia." in found
        assert "My cat is called Mia." in answer


@windows
async def test_a_ticket_is_made_once_after_allow(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is done.")
    async with at_office(window, own_store, model, tmp_path, office) as ann:
        await ann.ask("Make a ticket.")
        await ann.until_asked()
        asked = ann.text(), list(office.made)
        await ann.press("Allow")
        answer = await ann.answered()

        assert asked == (f"Let me see.\n\n{QUESTION}", [])
        assert office.made == ["Printer"]
        assert answer == f"Let me see.\n\nIt is done.\n\n(Steps: {STEP}: done.)"
        assert "Ticket 1: Printer" in results(model.requests[-1].messages)[0]
        assert len(model.requests) == 2


@THREADS
@pytest.mark.parametrize("answered", [True, False], ids=["denied", "silence"])
async def test_no_ticket_is_made_after_deny_or_silence(
    answered: bool, window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is not done.")
    seconds = "300" if answered else "1"
    async with at_office(
        window, own_store, model, tmp_path, office, CONSENT_SECONDS=seconds
    ) as ann:
        await ann.ask("Make a ticket.")
        if answered:
            await ann.until_asked()
            await ann.press("Deny")
        answer = await ann.answered()

        outcome = "denied" if answered else "not allowed in time"
        assert answer == f"Let me see.\n\nIt is not done.\n\n(Steps: {STEP}: {outcome}.)"
        assert not office.made


@THREADS
async def test_a_press_of_somebody_else_makes_nothing_and_the_asker_can_still_answer(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is done.")
    async with at_office(window, own_store, model, tmp_path, office) as ann:
        bob = ann.platform.user("Bob")
        await ann.ask("Make a ticket.")
        await ann.until_asked()
        for number, label in enumerate(LABELS, 1):
            await ann.press(label, by=bob)
            await until(lambda n=number: ann.told(bob) == [NOT_YOURS] * n, why=ann.why)  # type: ignore[misc]
        made = list(office.made)
        await ann.press("Allow")
        await ann.answered()

        assert (made, office.made) == ([], ["Printer"])


@THREADS
async def test_what_is_allowed_always_is_asked_for_again_once_it_is_revoked_or_changed(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is done.")
    async with platform_of(window) as platform:
        async with (
            office.serving(tmp_path) as variables,
            served(platform, own_store, model, variables=variables) as service,
        ):
            ann = Asker(platform, window, model, service)
            await ann.ask("Make a ticket.")
            await ann.until_asked()
            await ann.press("Allow always")
            await ann.answered()
            await ann.ask("And another.")
            await ann.answered()
            assert office.made == ["Printer"] * 2

            shown = await ann.command("")
            told = await ann.command("revoke office/create_ticket")
            await ann.ask("And another.")
            await ann.until_asked()
            await ann.press("Allow always")
            await ann.answered()

        office.description = "Make a ticket, and send it to everybody."
        async with (
            office.serving(tmp_path) as variables,
            served(platform, own_store, model, variables=variables) as ann.service,
        ):
            await ann.ask("And another.")
            await ann.until_asked()
            await ann.press("Deny")
            await ann.answered()

    assert "allowed for always: `office/create_ticket`" in shown
    assert told == "I will ask you again before I use `office/create_ticket`."
    assert office.made == ["Printer"] * 3


@THREADS
async def test_a_question_that_waits_to_be_allowed_survives_a_restart(
    window: type[Way], own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office = Office()
    answers(model, TICKET, "It is done.")
    async with platform_of(window) as platform, office.serving(tmp_path) as variables:
        async with served(platform, own_store, model, variables=variables) as service:
            ann = Asker(platform, window, model, service)
            await ann.ask("Make a ticket.")
            await ann.until_asked()
        async with served(platform, own_store, model, variables=variables) as ann.service:
            waits = ann.labels(), list(office.made)
            await ann.press("Allow")
            answer = await ann.answered()
        records = [*service.records, *ann.service.records]

    assert waits == (LABELS, [])
    assert office.made == ["Printer"]
    assert answer == f"Let me see.\n\nIt is done.\n\n(Steps: {STEP}: done.)"
    # What was said before the question is not asked for again.
    assert len(model.requests) == 2
    assert [it.name for it in records].count("parley.audit") == 1


async def counts(address: str) -> dict[str, float]:
    """Return how often each tool of the office was called, with which outcome."""
    async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as response:
        text = await response.text()
    assert "rinter" not in text
    called = re.findall(r'^parley_tool_calls_total{(.*server="office".*)} (.*)$', text, re.M)
    return {labels: float(count) for labels, count in called}


@pytest.mark.parametrize(
    ("label", "consent", "outcome"),
    [("Allow", "allow", "done"), ("Deny", "deny", "denied"), ("", "late", "not allowed in time")],
)
async def test_a_call_with_effects_is_counted_and_has_one_line_for_auditors_without_words(
    label: str,
    consent: str,
    outcome: str,
    own_store: Store,
    model: ModelEmulator,
    tmp_path: Path,
) -> None:
    office = Office(notes="The printer is new.")
    seconds = "300" if label else "1"
    answers(model, NOTES, TICKET, "So it is.")
    async with at_office(
        SlackMention, own_store, model, tmp_path, office, CONSENT_SECONDS=seconds
    ) as ann:
        before = await counts(ann.service.address)
        await ann.ask("Make a ticket for the Printer.")
        if label:
            await ann.until_asked()
            await ann.press(label)
        await ann.answered()
        after = await counts(ann.service.address)

        lines = [it.getMessage() for it in ann.service.records if it.name == "parley.audit"]
        log = ann.service.text()

    new = {labels for labels, count in after.items() if count == before.get(labels, 0.0) + 1.0}
    assert new == {
        f'outcome="{outcome}",server="office",tool="create_ticket"',
        'outcome="done",server="office",tool="read_notes"',
    }
    (line,) = lines
    assert f"person={ann.way.person} server=office tool=create_ticket" in line
    assert f"consent={consent} outcome={outcome.replace(' ', '_')} arguments=" in line
    assert "rinter" not in log


@pytest.mark.parametrize("takes", [True, False], ids=["off", "takes none"])
async def test_where_there_are_no_tools_no_request_has_any(
    takes: bool, own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    model.calling = model.models if takes else ()
    choice = {"TOOLS": "off"} if takes else {}
    async with (
        Office().serving(tmp_path) as variables,
        asking(DiscordMention, own_store, model, **variables, **choice) as ann,
    ):
        await ann.ask("Well?")
        assert await ann.answered() == "You said: Well?"

    (asked,) = model.requests
    assert "tools" not in asked.body
    assert "tool" not in str(asked.messages[0])


async def test_a_model_that_reports_that_it_takes_tools_gets_ours_without_any_setting(
    own_store: Store, model: ModelEmulator
) -> None:
    model.calling = model.models
    async with asking(DiscordMention, own_store, model) as ann:
        for text in ("Is https://example.org/ good?", "And again?"):
            await ann.ask(text)
            await ann.answered()

    assert model.requests[0].tools == ["read_channel_messages", "open_link"]
    assert model.requests[1].tools == [
        "read_earlier_messages",
        "read_channel_messages",
        "open_link",
    ]
