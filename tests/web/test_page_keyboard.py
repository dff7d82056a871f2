"""Everything in the page can be done with a keyboard, by Tab, Enter and Escape alone."""

from __future__ import annotations

from playwright.async_api import expect

from tests.support.chromium import Site, Window

_FOCUSED = """() => {
  const one = document.activeElement;
  const label = one.labels?.[0]?.firstChild.textContent;
  return (one.ariaLabel || label || one.textContent).trim();
}"""


async def to(window: Window, *names: str, back: bool = False) -> None:
    """Press Tab until what has the focus is named so; each name once, one after the other."""
    for name in names:
        for _ in range(100):
            if (focused := await window.read(_FOCUSED)) == name:
                break
            await window.page.keyboard.press("Shift+Tab" if back else "Tab")
        assert focused == name


async def press(window: Window, *names: str, back: bool = False) -> None:
    """Press Enter on what is named so."""
    await to(window, *names, back=back)
    await window.page.keyboard.press("Enter")


async def test_a_conversation_needs_no_mouse(site: Site) -> None:
    async with site.window("") as window:
        keys, answer = window.page.keyboard, [(0.0, "Well, "), (0.0, "then"), (600.0, "never")]
        site.model.answer = answer
        await expect(window.box).to_be_focused()
        await keys.type("why?")
        await keys.press("Enter")
        await window.says("then")
        await press(window, "Stop the answer")
        await expect(window.box).to_be_focused()
        await window.ended("stopped")
        site.model.answer = "Another"
        await press(window, "Answer again", back=True)
        await window.says("Another")
        await window.ended()
        site.model.answer = answer
        await press(window, "Answer again")
        await window.says("then")
        await keys.press("Escape")
        await window.ended("stopped")
        site.model.answer = "A last one"
        await press(window, "Edit your message", back=True)
        await keys.type(" And how?")
        await press(window, "Send")
        await window.says("A last one")
        await window.ended()

        await expect(window.page.locator(".said")).to_have_text("why? And how?")


async def test_a_conversation_is_kept_chosen_for_found_and_deleted_without_a_mouse(
    site: Site,
) -> None:
    async with site.window() as window:
        keys, title = window.page.keyboard, window.page.locator("#title")
        await keys.type("why?")
        await keys.press("Enter")
        await window.ended()
        await press(window, "More for why?", back=True)
        await keys.press("Escape")
        await to(window, "More for why?")
        await keys.press("Enter")
        await keys.press("ArrowDown")
        await press(window, "Rename")
        await keys.press("Escape")
        await press(window, "More for why?")
        await keys.press("ArrowDown")
        await press(window, "Rename")
        await keys.type("The sky")
        await keys.press("Enter")
        await expect(title).to_have_text("The sky")
        async with window.page.expect_download() as download:
            await press(window, "Export as Markdown")
        assert (await download.value).suggested_filename == "the-sky.md"

        await press(window, "emulated", back=True)
        await to(window, "Persona")
        await keys.type("A pirate")
        await press(window, "Save")
        await expect(window.page.locator("#answers")).to_be_hidden()

        await press(window, "New conversation", back=True)
        await expect(window.box).to_be_focused()
        await to(window, "Search conversations")
        await keys.type("nothing like it")
        await expect(window.conversations).to_have_count(0)
        await keys.press("Escape")
        await expect(window.conversations).to_have_count(1)
        await press(window, "The sky")
        await expect(window.turns).to_have_count(1)
        await press(window, "Delete this conversation", back=True)
        await press(window, "Cancel")
        await press(window, "Delete this conversation")
        await press(window, "Delete")

        await expect(window.conversations).to_have_count(0)
        await expect(window.box).to_be_focused()


async def test_keys_lead_to_the_search_and_to_a_new_conversation(site: Site) -> None:
    async with site.window() as window:
        await window.ask("why?")
        await window.ended()
        await window.page.keyboard.press("Control+k")
        await expect(window.page.get_by_role("searchbox")).to_be_focused()
        await window.page.keyboard.press("Control+Shift+O")
        await expect(window.page).to_have_url(f"{site.address}/")
        await expect(window.box).to_be_focused()
        await window.button("Help and usage").click()

        await expect(window.page.get_by_role("term")).to_have_text(
            ["Enter", "Shift+Enter", "Escape", "↑", "Ctrl+K", "Ctrl+Shift+O"]
        )


async def test_what_was_said_is_found_marked_and_shown(site: Site) -> None:
    async with site.window("It scatters.\n\n" + "More of it.\n\n" * 40) as window:
        await window.ask("why is the sky blue?")
        await window.ended()
        site.model.answer = "Because.\n\n" + "So it is.\n\n" * 40
        await window.ask("and so?")
        await window.ended()
        await window.page.keyboard.press("Control+Shift+O")
        await window.page.keyboard.press("Control+k")
        await window.page.keyboard.type("SKY scatter")
        marks = window.page.locator("#conversations mark")
        await expect(marks).to_have_text(["sky", "scatter"])
        await window.page.keyboard.press("Tab")
        await window.page.keyboard.press("Enter")

        await expect(window.page.locator(".said").first).to_be_in_viewport()
        await expect(window.page.locator(".said").last).not_to_be_in_viewport()
