"""A person has a conversation in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack, suppress

import aiohttp
from playwright.async_api import Browser, Route, expect
from playwright.async_api import TimeoutError as TooLate

from adapters.web.follower import MOST_PAGES
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.chromium import Site, Window, gated, window
from tests.support.ports import free_port
from tests.support.process import ANSWER
from tests.support.service import serving
from tests.support.web_page import address_of, web_variables

LONG = "\n\n".join(f"This is paragraph {number} of a long answer." for number in range(400))
SHOWN = re.sub(r"[*`]", "", ANSWER)


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


async def test_enter_asks_and_the_answer_grows(site: Site) -> None:
    async with site.window() as window:
        gates, (*script, _) = gated(*words(ANSWER))
        site.model.answer = script
        await expect(window.page.locator("#welcome")).to_be_visible()
        await expect(window.box).to_be_focused()
        await window.read(_NOTE_LENGTHS)
        await window.box.press_sequentially("why is")
        await window.box.press("Shift+Enter")
        await window.box.press_sequentially("the sky blue?")
        await expect(window.turns).to_have_count(0)
        await window.box.press("Enter")
        await expect(window.page.locator(".answer")).to_have_attribute("aria-busy", "true")
        await expect(window.button("Stop the answer")).to_be_visible()
        for number, gate in enumerate(gates):
            gate.set()
            if number < 6:
                await window.page.wait_for_function(
                    "number => new Set(lengths).size > number", arg=number
                )
        await window.ended()

        await expect(window.box).to_have_value("")
        await expect(window.answer).to_have_text(SHOWN)
        await expect(window.page.locator(".said")).to_have_text("why is\nthe sky blue?")
        await expect(window.page.locator(".answer")).to_have_attribute("aria-busy", "false")
        await expect(window.page.get_by_role("status").last).to_have_text("The answer is complete.")
        await expect(window.page).to_have_url(re.compile(r"/c/[0-9a-f]{32}$"))
        await expect(window.page).to_have_title("why is the sky blue? · Parley")
        await expect(window.conversations.get_by_role("link")).to_have_text(
            ["why is the sky blue?"]
        )
        await expect(window.button("Stop the answer")).to_be_hidden()
        lengths = await window.read("lengths")

    assert lengths == sorted(lengths)


_NOTE_LENGTHS = """
window.lengths = [];
new MutationObserver(() => lengths.push(document.querySelector(".text")?.textContent.length ?? 0))
  .observe(document.querySelector("#log"), { subtree: true, childList: true, characterData: true });
"""


async def test_an_enter_that_ends_a_word_of_an_input_method_sends_nothing(site: Site) -> None:
    async with site.window() as window:
        session = await window.page.context.new_cdp_session(window.page)
        composition = {"text": "にほん", "selectionStart": 3, "selectionEnd": 3}
        await window.box.focus()
        await session.send("Input.imeSetComposition", composition)
        await window.box.press("Enter")
        await session.send("Input.insertText", {"text": "日本"})
        # Safari tells its end of a composition by this code alone.
        await window.read(
            """document.querySelector("#box").dispatchEvent(new KeyboardEvent("keydown",
               { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))"""
        )
        await window.box.press("Enter")
        await window.ended()

        await expect(window.page.locator(".said")).to_have_text(["日本"])


async def test_a_reload_in_mid_answer_keeps_the_answer_and_the_draft(site: Site) -> None:
    async with site.window() as window:
        goes_on = asyncio.Event()
        site.model.answer = [(0.0, "The quick "), (goes_on, ANSWER)]
        await window.ask("why?")
        await window.says("The quick")
        await window.box.fill("and then")
        await window.page.reload()
        await window.says("The quick")
        await expect(window.turns).to_have_attribute("data-state", "running")
        goes_on.set()
        await window.ended()

        await expect(window.answer).to_have_text(f"The quick {SHOWN}")
        await expect(window.box).to_have_value("and then")
        await window.page.get_by_role("link", name="New conversation").click()
        await expect(window.box).to_have_value("")
        await window.page.go_back()
        await expect(window.box).to_have_value("and then")
        await expect(window.answer).to_have_text(f"The quick {SHOWN}")


async def test_what_is_asked_meanwhile_waits_and_can_be_taken_back(site: Site) -> None:
    async with site.window() as window:
        site.model.answer = [(0.0, "paragraph 1"), (600.0, "never")]
        await window.ask("first")
        await window.says("paragraph 1")
        await window.ask("second")
        await window.ask("third")
        # On a busy machine the running answer has a sign of life.
        notes = window.page.locator(".note:visible").filter(has_not_text="Still thinking…")
        await expect(notes).to_have_text(["Waits for the answer above."] * 2)

        await window.turns.nth(1).get_by_role("button", name="Delete your message").click()
        await window.button("Delete").click()
        await expect(window.page.locator(".said")).to_have_text(["first", "third"])
        site.model.answer = "Short."
        await window.box.press("Escape")
        await expect(window.turns.first).to_have_attribute("data-state", "stopped")
        await window.ended()

        await expect(window.answer).to_have_text("Short.")
        await window.page.reload()
        await expect(window.page.locator(".said")).to_have_text(["first", "third"])
        await expect(window.turns.first.locator(".text")).to_contain_text("paragraph 1")


async def test_a_long_wait_shows_a_hint_and_then_the_model_that_answered(
    site: Site,
) -> None:
    async with site.window("") as window:
        clock = window.page.clock
        await clock.install()
        site.model.answer = [(0.0, ""), (600.0, "never")]
        await window.ask("why?")
        await expect(window.page.locator(".dots")).to_be_visible()
        await expect(window.turns).to_have_attribute("data-state", "running")
        await clock.fast_forward("00:10")
        await expect(window.page.locator(".note")).to_contain_text("This takes longer than usual.")
        await window.box.press("Escape")
        await window.ended("stopped")
        site.model.answer = "Because."
        await window.button("Try again").click()
        await window.says("Because.")

        await expect(window.page.locator(".by")).to_have_text(site.model.models[0])
        await expect(window.page.locator("#model")).to_have_text(site.model.models[0])


async def test_an_answer_is_copied_rated_and_written_anew_and_its_question_edited(
    site: Site,
) -> None:
    answer = "One.\n\n```python\nprint(1)\n```"
    permissions = ["clipboard-read", "clipboard-write"]
    async with site.window(answer, permissions=permissions) as window:
        await window.ask("count")
        await window.ended()
        await expect(window.page.locator(".hljs-title, .hljs-built_in")).to_have_text("print")
        await window.button("Copy").click()
        await until_copied(window, "print(1)\n")
        await window.button("Copy the answer").click()
        await until_copied(window, answer)
        await window.button("Good answer").click()
        await expect(window.button("Good answer")).to_have_attribute("aria-pressed", "true")
        await window.button("Good answer").click()
        await expect(window.button("Good answer")).to_have_attribute("aria-pressed", "false")

        site.model.answer = "Two."
        await window.button("Answer again").click()
        await expect(window.answer).to_have_text("Two.")
        await window.ended()
        site.model.answer = lambda messages: f"Answer to: {messages[-1]['content']}"
        await window.box.press("ArrowUp")
        editor = window.page.locator(".editor textarea")
        await expect(editor).to_be_focused()
        await expect(editor).to_have_value("count")
        await editor.press("Escape")
        await expect(editor).to_have_count(0)
        await window.box.press("ArrowUp")
        await editor.press_sequentially(" on")
        await editor.press("Enter")

        await window.says("count on")
        await expect(window.page.locator(".said")).to_have_text(["count on"])


async def until_copied(window: Window, text: str) -> None:
    """Wait until the clipboard has the text."""
    await window.page.wait_for_function(
        "async (text) => (await navigator.clipboard.readText()) === text", arg=text
    )


async def test_an_address_that_is_not_whole_says_so_until_something_is_asked(site: Site) -> None:
    async with site.window() as window:
        missing = window.page.get_by_role("heading", name="This conversation is not here")
        for path in ("/c/0123", f"/c/{'0' * 65}", "/c/01234567_"):
            await window.open(path)
            await expect(missing).to_be_visible()
        await expect(window.page.locator("#welcome")).to_be_hidden()
        await window.ask("why?")
        await window.ended()

        await expect(missing).to_be_hidden()
        await expect(window.page).to_have_url(re.compile(r"/c/[0-9a-f]{32}$"))


async def test_an_answer_that_was_cut_goes_on_below(site: Site) -> None:
    async with site.window(LONG) as window:
        await window.ask("much")
        await window.ended()
        note = window.page.locator(".note:visible")
        await expect(note).to_contain_text("the longest answer I can give")
        site.model.answer = "That is all."
        await window.button("Continue").click()
        await window.says("That is all.")
        await window.ended()

        await expect(window.page.locator(".said:visible")).to_have_text(["much"])
        await expect(window.button("Continue")).to_have_count(0)


async def test_the_page_follows_the_end_until_the_reader_scrolls_up(site: Site) -> None:
    async with site.window() as window:
        parts = (f"{LONG[:1000]}\n\nThis is part {part}.\n\n" for part in "ABC")
        gates, site.model.answer = gated(*parts)
        await window.ask("much")
        gates[0].set()
        await window.says("part A")
        assert await window.read(_FROM_END) < 60
        await window.page.mouse.move(700, 300)
        await window.page.mouse.wheel(0, -300)
        down = window.button("Go to the newest message")
        await expect(down).to_be_visible()
        top = await window.read("document.querySelector('#scroller').scrollTop")
        gates[1].set()
        await window.says("part B")
        assert await window.read("document.querySelector('#scroller').scrollTop") == top

        await down.click()
        await expect(down).to_be_hidden()
        gates[2].set()
        await window.says("part C")
        await window.page.wait_for_function(f"{_FROM_END} < 60")
        await window.button("Stop the answer").click()
        await window.ended("stopped")


_FROM_END = """(() => { const box = document.querySelector("#scroller");
    return box.scrollHeight - box.scrollTop - box.clientHeight; })()"""


async def test_a_selection_survives_the_growth_of_what_is_selected(site: Site) -> None:
    async with site.window() as window:
        gates, site.model.answer = gated("Select **these words** here. One,", " two", ", three")
        await window.ask("more")
        gates[0].set()
        await window.says("One,")
        await window.read(
            """const word = document.querySelector(".text strong");
               getSelection().setBaseAndExtent(word.firstChild, 6, word.nextSibling, 5);
               window.selected = word;"""
        )
        for gate, text in zip(gates[1:], ("two", "three"), strict=True):
            gate.set()
            await window.says(text)

        assert await window.read("getSelection().toString()") == "words here"
        assert await window.read("document.querySelector('.text strong') === selected")
        await window.box.press("Escape")
        await window.ended("stopped")
        assert await window.read("getSelection().toString()") == "words here"


async def test_an_open_page_lives_through_the_death_of_its_server(
    chromium: Browser, own_store: Store, model: ModelEmulator
) -> None:
    async with AsyncExitStack() as stack:
        variables = web_variables(model, WEB_PORT=str(free_port()))
        async with serving(own_store, "web", "worker", variables=variables) as service:
            address = address_of(service)
            one = await stack.enter_async_context(window(chromium, address))
            await one.open()
            await one.ask("before")
            await one.ended()
        await one.ask("while you were away")
        await expect(one.page.locator("#connection")).to_be_visible()
        await expect(one.page.locator(".note:visible")).to_have_text("Not sent yet. I keep trying.")
        await one.box.fill("a draft")
        await one.turns.first.hover()
        await one.button("Good answer").click()
        async with serving(own_store, "web", "worker", variables=variables):
            with suppress(TooLate):  # it may have connected by itself
                await one.button("Try now").click(timeout=5_000)
            await one.ended()
            await expect(one.page.locator("#connection")).to_be_hidden()
            await expect(one.page.locator("[aria-pressed=true]")).to_have_count(1)
            await expect(one.page.locator(".said")).to_have_text(["before", "while you were away"])
            await expect(one.box).to_have_value("a draft")

    asked = [each.messages[-1]["content"] for each in model.requests]
    assert len([text for text in asked if "away" in text]) == 1


async def test_a_question_on_its_way_is_stopped_once_it_is_there(site: Site) -> None:
    async with site.window() as window:
        site.model.answer = [(0.0, ""), (600.0, "never")]
        may_pass = asyncio.Event()

        async def hold(route: Route) -> None:
            await may_pass.wait()
            await route.continue_()

        await window.page.route("**/questions", hold)
        await window.ask("why?")
        await expect(window.page.locator(".dots")).to_be_visible()
        await window.button("Stop the answer").click()
        await expect(window.page.locator("#stop")).to_be_hidden()
        may_pass.set()
        await window.ended("stopped")


async def test_a_refused_question_says_why_and_can_be_edited(site: Site) -> None:
    async with site.window(LONG, delay=0.05) as window:
        await window.ask("first")
        await window.says("paragraph")
        await window.read(_ASK_MANY)
        await window.ask("one too many")
        refused = window.turns.last
        await expect(refused.locator(".note")).to_contain_text("Please ask again")
        await expect(window.button("Try again")).to_be_visible()
        await window.button("Edit").click()

        await expect(window.box).to_have_value("one too many")
        await expect(window.page.get_by_text("Please ask again")).to_have_count(0)
        await window.button("Delete this conversation").click()
        await window.button("Delete").click()
        await expect(window.turns).to_have_count(0)


# More than one person may have waiting.
_ASK_MANY = """
Promise.all([...Array(60).keys()].map((number) => fetch(
  `/api${location.pathname.replace("/c/", "/conversations/")}/questions`,
  { method: "POST", headers: { "X-Parley": "1" },
    body: JSON.stringify({ id: crypto.randomUUID(), text: `question ${number}` }) })))
"""


async def test_a_page_that_made_room_for_newer_ones_goes_on_when_it_is_asked(site: Site) -> None:
    async with site.window() as window, AsyncExitStack() as stack:
        await window.ask("one")
        await window.ended()
        path = window.page.url.removeprefix(site.address)
        cookies = [f"{one['name']}={one['value']}" for one in await window.page.context.cookies()]
        opening = aiohttp.ClientSession(headers={"Cookie": "; ".join(cookies)})
        others = await stack.enter_async_context(opening)
        for _ in range(MOST_PAGES):
            url = f"{site.address}/api/conversations/{path.rpartition('/')[2]}/events"
            await stack.enter_async_context(others.get(url))
        await expect(window.page.locator("#connection")).to_contain_text("many other windows")
        await window.button("Continue here").click()
        await expect(window.page.locator("#connection")).to_be_hidden()
        for _ in range(MOST_PAGES):
            await stack.enter_async_context(others.get(url))
        await expect(window.page.locator("#connection")).to_be_visible()
        await window.ask("two")
        await expect(window.turns).to_have_count(2)
        await window.ended()


async def test_the_page_can_be_put_on_a_phones_screen(site: Site) -> None:
    async with site.window() as window:
        protocol = await window.page.context.new_cdp_session(window.page)
        found = await protocol.send("Page.getAppManifest")
        manifest = json.loads(found["data"])
        sizes = """icons => Promise.all(icons.map(async (icon) => {
          const image = new Image();
          image.src = new URL(icon.src, document.querySelector("link[rel=manifest]").href);
          await image.decode();
          return icon.sizes === "any" || icon.sizes === `${image.width}x${image.height}`;
        }))"""

        assert found["errors"] == []
        assert (manifest["name"], manifest["start_url"]) == ("Parley", "/")
        assert await window.read(sizes, manifest["icons"]) == [True] * 4
        assert {icon.get("purpose") for icon in manifest["icons"]} == {None, "maskable"}
