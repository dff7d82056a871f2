"""Files in the page: added in each way, shown, taken away, refused, and sent with a question."""

from __future__ import annotations

import asyncio
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser as BrowserType
from playwright.async_api import Error, FilePayload, Route, expect

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.chromium import PHONE, WIDE, Site, Window
from tests.support.chromium import window as window_of
from tests.support.ports import free_port
from tests.support.process import bot
from tests.support.service import serving
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import web_variables
from tests.web.conftest import OwnPage
from tests.web.test_page_access import findings
from tests.web.test_page_keyboard import press, to

# Files, as they are dropped or pasted, or a text without a type.
_BRING = """([kind, names, type]) => {
  const data = new DataTransfer();
  for (const name of names) {
    if (type) data.items.add(new File(["in " + name], name, { type }));
    else data.setData("text/plain", name);
  }
  const key = kind === "paste" ? "clipboardData" : "dataTransfer";
  const target = document.querySelector(type ? "#log" : "#box");
  const event = kind === "paste" ? new ClipboardEvent(kind, { [key]: data, bubbles: true,
    cancelable: true }) : new DragEvent(kind, { [key]: data, bubbles: true, cancelable: true });
  return target.dispatchEvent(event);
}"""


# What a page from before there were files has kept of a refused question.
_KEEP_OLDER = """async () => {
  const { id } = await (await fetch("/api/me")).json();
  const conversation = location.pathname.split("/").pop();
  const entry = { id: "old-question", conversation, text: "From before", at: 0, why: "Refused." };
  localStorage.setItem(`${id}/question:${entry.id}`, JSON.stringify(entry));
}"""


def text_file(name: str, content: bytes = b"in it") -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": content}


async def bring(window: Window, kind: str, *names: str, of: str = "text/plain") -> Any:
    return await window.read(_BRING, [kind, names, of])


def chips(window: Window, of: str = "#files") -> Any:
    return window.page.locator(f"{of} .chip .name")


async def test_files_are_chosen_pasted_and_dropped_and_stand_above_the_question(
    site: Site,
) -> None:
    async with site.window() as window:
        async with window.page.expect_file_chooser() as choosing:
            await window.button("Add files").click()
        await (await choosing.value).set_files([text_file("a.txt"), text_file("b.txt")])
        for kind in ("dragover", "drop"):
            assert not await bring(window, kind, "c.txt", "d.txt")
            dropping = await window.read("document.body.classList.contains('dropping')")
            assert dropping == (kind == "dragover")
        assert not await bring(window, "paste", "e.txt")
        assert await bring(window, "paste", "some words", of="")
        await expect(chips(window)).to_have_text([f"{one}.txt" for one in "abcde"])
        await expect(window.page.locator("#files progress")).to_have_count(0)
        await window.button("Remove b.txt").click()
        await expect(window.box).to_be_focused()
        await expect(window.page.locator("#status")).to_have_text("b.txt was removed.")
        await expect(window.box).to_have_attribute("placeholder", "Ask about your files")
        await window.ask("What is it?")
        await window.ended()

        await expect(chips(window, ".question")).to_have_text([f"{one}.txt" for one in "acde"])
        await expect(chips(window)).to_have_count(0)
        prompt = str(site.model.requests[-1].messages[-1]["content"])
        assert [f"| in {one}.txt\n" in prompt for one in "cde"] == [True] * 3
        await window.page.reload()
        await expect(chips(window, ".question")).to_have_text([f"{one}.txt" for one in "acde"])


async def test_a_question_that_an_older_page_has_kept_is_shown(site: Site) -> None:
    async with site.window() as window:
        await window.ask("Hello")
        await window.ended()
        await window.read(_KEEP_OLDER)
        await window.page.reload()

        await expect(window.page.get_by_text("From before")).to_be_visible()


async def test_files_that_cannot_be_read_are_refused_before_they_are_sent(
    own_page: OwnPage,
) -> None:
    async with own_page(FILE_MAX_MB="1", FILES_PER_QUESTION="2") as window:
        sent: list[str] = []
        await window.open()
        await expect(window.page.locator("#model")).to_have_text("emulated")
        window.page.on("request", lambda it: sent.append(it.url) if it.method == "PUT" else None)
        file, toast = window.page.locator("#file"), window.page.locator("#toast")
        await file.set_input_files(
            [text_file("big.txt", b"x" * 1_000_001), text_file("no.txt", b"")]
        )
        await expect(toast).to_have_text(
            "big.txt: 1 MB is the limit for a file.\nno.txt: There is nothing in this file."
        )
        await file.set_input_files([text_file(name) for name in ("a.txt", "b.txt", "c.txt")])
        await expect(toast).to_have_text("c.txt: At most 2 at once.")
        await expect(chips(window)).to_have_text(["a.txt", "b.txt"])
        await expect(window.page.locator("#files progress")).to_have_count(0)

        assert len(sent) == 2


async def test_a_page_without_files_has_no_button_and_says_so(own_page: OwnPage) -> None:
    async with own_page(FILES_PER_QUESTION="0") as window:
        await window.open()
        await expect(window.page.locator("#model")).to_have_text("emulated")

        await bring(window, "paste", "a.txt")

        await expect(window.page.locator("#attach")).to_be_hidden()
        await expect(window.page.locator("#toast")).to_have_text("a.txt: No files are read here.")


async def test_a_question_waits_for_its_files_and_a_slow_one_can_be_taken_away(
    site: Site,
) -> None:
    async with site.window() as window:
        gate = asyncio.Event()

        async def slowly(route: Route) -> None:
            await gate.wait()
            with suppress(Error):  # that was taken away
                await route.continue_()

        await window.page.route("**/api/files/*", slowly)
        await window.page.locator("#file").set_input_files([text_file("a.txt"), text_file("b.txt")])
        await expect(window.page.get_by_role("progressbar", name="Sending a.txt")).to_be_visible()
        await window.ask("What is it?")
        await expect(window.button("Send")).to_be_disabled()
        await expect(window.box).to_have_value("What is it?")
        await window.button("Remove a.txt").click()
        gate.set()
        await expect(window.page.locator("#files progress")).to_have_count(0)
        await expect(window.page.locator("#status")).to_have_text("b.txt is added.")
        await window.button("Send").click()
        await window.ended()

        await expect(chips(window, ".question")).to_have_text(["b.txt"])


async def test_an_upload_that_fails_is_told_and_one_of_others_does_not_wait_for_it(
    site: Site,
) -> None:
    async with site.window() as window:

        async def failing(route: Route) -> None:
            if failures:
                await failures.pop(0)(route)
            else:
                await route.continue_()

        failures = [
            lambda route: route.fulfill(status=409, json={"error": "No."}),
            lambda route: route.fulfill(status=400, body=""),
        ]
        await window.page.route("**/api/files/*", failing)
        file, toast = window.page.locator("#file"), window.page.locator("#toast")
        await file.set_input_files(text_file("a.txt"))
        await expect(toast).to_have_text("a.txt: No.")
        await file.set_input_files([text_file("b.txt"), text_file("c.txt")])
        await expect(toast).to_have_text("b.txt: I could not send it.")

        await expect(window.page.locator("#status")).to_have_text("c.txt is added.")
        await expect(chips(window)).to_have_text(["c.txt"])


async def test_an_upload_is_sent_again_for_a_minute_unless_the_file_is_there_no_more(
    site: Site, data_dir: Path
) -> None:
    file, gone = data_dir / "a.txt", data_dir / "gone.txt"
    for one in (file, gone):
        one.write_text("in it")
    async with site.window() as window:
        sent: list[str] = []

        async def away(route: Route) -> None:
            gone.unlink(missing_ok=True)
            sent.append(route.request.url)
            await route.abort()

        await window.page.route("**/api/files/*", away)
        toast = window.page.locator("#toast")
        await window.page.locator("#file").set_input_files(gone)
        await expect(toast).to_have_text("gone.txt: I could not send it.")
        assert len(sent) == 1
        await window.page.locator("#file").set_input_files(file)
        await until(lambda: len(sent) > 2)
        await expect(window.page.get_by_role("progressbar", name="Sending a.txt")).to_be_visible()
        await window.read("() => { const now = Date.now; Date.now = () => now() + 60000; }")
        await expect(toast).to_have_text("a.txt: I could not send it.")

        await expect(chips(window)).to_have_count(0)


async def test_a_kill_in_the_middle_of_an_upload_loses_neither_the_file_nor_what_was_typed(
    chromium: BrowserType, own_store: Store, data_dir: Path, model: ModelEmulator
) -> None:
    port = free_port()
    variables = web_variables(model, WEB_PORT=str(port), REDIS_URL=own_store.url)
    content = b"The mill stands on the river.\n" * 20_000
    model.answer = "I see."

    async def arrived() -> list[bytes]:
        found = own_store.redis.scan_iter(match=own_store.key("upload", "*"))
        get = own_store.redis.execute_command
        return [await get("GET", one, NEVER_DECODE=True) async for one in found]  # type: ignore[no-untyped-call]

    async with (
        serving(own_store, "worker", variables=web_variables(model)) as service,
        window_of(chromium, f"http://127.0.0.1:{port}") as window,
    ):
        async with bot("web", data_dir=data_dir, variables=variables) as web:
            await until(lambda: "The page is at" in web.text(), why=web.text)
            await window.open()
            await expect(window.button("Add files")).to_be_visible()
            await window.box.fill("What is in it?")
            network = await window.page.context.new_cdp_session(window.page)
            slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
            slowly = {**slow, "uploadThroughput": 100_000}
            await network.send("Network.emulateNetworkConditions", slowly)
            await window.page.locator("#file").set_input_files(text_file("a.txt", content))
            async with asyncio.timeout(30):
                while not (begun := await arrived()):
                    await asyncio.sleep(0.02)
            web.kill()
            await web.process.wait()
            quickly = {**slow, "uploadThroughput": -1}
            await network.send("Network.emulateNetworkConditions", quickly)
        async with bot("web", data_dir=data_dir, variables=variables) as again:
            await until(lambda: "The page is at" in again.text(), why=again.text)
            await expect(window.page.locator("#status")).to_have_text("a.txt is added.")
            await expect(window.box).to_have_value("What is in it?")
            complete = [one for one in await arrived() if one == content]
            await window.box.press("Enter")
            await window.ended()
            await expect(chips(window, ".question")).to_have_text(["a.txt"])

    asked = "".join(str(one["content"]) for one in model.requests[-1].messages)
    assert begun != [content]
    assert complete == [content]
    assert "The mill stands on the river." in asked
    assert not service.errors()


async def test_files_stay_in_the_box_when_another_conversation_is_opened(site: Site) -> None:
    async with site.window() as window:
        await window.ask("why?")
        await window.ended()
        await window.page.locator("#file").set_input_files(text_file("a.txt"))
        await expect(window.page.locator("#status")).to_have_text("a.txt is added.")
        await window.page.locator("#new").click()
        await window.ask("help")
        await expect(window.page.locator("#help")).to_be_visible()
        await window.page.keyboard.press("Escape")
        await expect(chips(window)).to_have_text(["a.txt"])
        await window.ask("What is it?")
        await window.ended()

        assert "| in it\n" in str(site.model.requests[-1].messages[-1]["content"])


async def test_an_upload_that_has_expired_is_told_at_its_question(
    own_page: OwnPage, own_store: Store
) -> None:
    async with own_page() as window:
        await window.open()
        await window.page.locator("#file").set_input_files(text_file("a.txt"))
        await expect(window.page.locator("#status")).to_have_text("a.txt is added.")
        for one in await stored(own_store):
            if one.name.startswith("upload:"):
                await own_store.command("DEL", own_store.key("") + one.name)
        await window.ask("What is it?")
        await expect(window.page.locator(".note")).to_have_text(
            "I no longer have a.txt. Please add it again."
        )
        await window.button("Edit").click()
        await expect(chips(window)).to_have_text(["a.txt"])
        await window.button("Remove a.txt").click()
        await window.page.locator("#file").set_input_files(text_file("a.txt"))
        await expect(window.page.locator("#status")).to_have_text("a.txt is added.")
        await window.button("Send").click()
        await window.ended()

        await expect(chips(window, ".question")).to_have_text(["a.txt"])


async def test_what_is_read_is_told_while_that_takes_long(
    own_page: OwnPage, own_store: Store, model: ModelEmulator
) -> None:
    model.answer = [(0.0, "Well, "), (600.0, "never")]
    async with own_page() as window:
        await window.open()
        await window.ask("why?")
        await window.says("Well,")
        await window.page.locator("#file").set_input_files(text_file("a.txt"))
        await expect(window.page.locator("#status")).to_have_text("a.txt is added.")
        await window.ask("What is it?")
        await expect(window.turns.last.locator(".note")).to_have_text("Waits for the answer above.")
        (key,) = await own_store.command("KEYS", own_store.key("upload", "*"))
        # What cannot be read is tried again.
        await own_store.command("RENAME", key, f"{key}-away")
        await own_store.command("RPUSH", key, "no text")
        model.answer = "So."
        await window.button("Stop the answer").click()
        await expect(window.turns.last.locator(".note")).to_have_text("Reading a.txt …")
        await own_store.command("RENAME", f"{key}-away", key)
        await window.says("So.")
        await window.ended()

    assert "| in it\n" in str(model.requests[-1].messages[-1]["content"])


async def test_kinds_that_are_not_read_are_told_below_the_answer(site: Site) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("notes.txt", "in it")
    async with site.window() as window:
        files: list[FilePayload] = [
            {"name": "a.zip", "mimeType": "application/zip", "buffer": packed.getvalue()},
            {"name": "voice.ogg", "mimeType": "audio/ogg", "buffer": b"OggS\0"},
        ]
        await window.page.locator("#file").set_input_files(files)
        await expect(window.page.locator("#files progress")).to_have_count(0)
        await window.ask("What is it?")
        await window.ended()

        await expect(window.turns.last.locator(".note")).to_have_text(
            "I cannot read a.zip, voice.ogg: I read text, PDF, DOCX, PPTX, XLSX and pictures."
        )
        await expect(window.answer).to_have_text("Well.")


async def test_files_need_no_mouse(site: Site) -> None:
    async with site.window() as window:
        await window.page.locator("#file").set_input_files([text_file("a.txt"), text_file("b.txt")])
        await expect(window.page.locator("#files progress")).to_have_count(0)
        await press(window, "Remove b.txt", back=True)
        await expect(window.box).to_be_focused()
        async with window.page.expect_file_chooser():
            await press(window, "Add files", back=True)
        await to(window, "Your message")
        await window.page.keyboard.type("What is it?")
        await window.page.keyboard.press("Enter")
        await window.ended()

        await expect(chips(window, ".question")).to_have_text(["a.txt"])


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_axe_finds_nothing_and_nothing_sticks_out(size: dict[str, int], site: Site) -> None:
    names = ["a.txt", f"{'a very long name ' * 20}.txt", "\u05e9\u05dc\u05d5\u05dd.txt"]
    async with site.window(viewport=size, reduced_motion="reduce") as window:
        await window.page.locator("#file").set_input_files([text_file(name) for name in names])
        await expect(window.page.locator("#files progress")).to_have_count(0)
        found = await findings(window)
        await window.box.fill("What is it?")
        await window.button("Send").click()
        await window.ended()
        found += await findings(window)
        wide = await window.read(
            "[...document.querySelectorAll('.chip, .chips, #scroller')]"
            ".map((one) => one.getBoundingClientRect())"
            ".filter(({ left, right }) => left < 0 || right > innerWidth).length"
        )

    assert (found, wide) == ([], 0)
