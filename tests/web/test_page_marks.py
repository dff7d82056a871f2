"""Task lists, footnotes, and text from right to left in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.chromium import PHONE, WIDE, Site, Window
from tests.web.test_page_access import findings
from tests.web.test_page_markdown import _GROWN, run

NOTED = """The mill[^1] stands on the river.

- [ ] see the mill
- [x] see the **tower** ([photo](https://example.org/p))
  - [ ] from above
- [y] no task

The tower[^high] is higher. Once more the mill[^1], but no note[^2] of `[^1]`, nor [a link[^1]](https://example.org).

[^1]: Built in 1702, with \\(x^2\\) wheels.
[^high]: Its height:
    80 metres.

    - measured

[^1]: Never shown as the first.

The end.
"""
_SHOWN = """
  growing.show(given, { ended: true });
  document.querySelector("main").append(box);
  const all = (names) => [...box.querySelectorAll(names)];
"""


@pytest.fixture
async def window(site: Site) -> AsyncIterator[Window]:
    """A window whose page only lends its modules."""
    async with site.window() as one:
        yield one


async def test_tasks_and_footnotes_end_as_the_whole_and_are_never_shown_by_half(
    window: Window,
) -> None:
    script = _GROWN.replace(r"/\*\*|\]\(|\|/", r"/\*\*|\]\(|\[[ x]?\]|\[\^1|^x$/m")
    script = script.replace("plain(box) === plain(shown(given))", "sameBut(box, shown(given))")
    # The name of an answer is its own.
    same = r"""
      const named = (one) => one.innerHTML.replace(/(note|mark)-\d+-/g, "$1-");
      const sameBut = (one, other) => named(one) === named(other);
    """
    source = NOTED.replace("`[^1]`, nor [a link[^1]](https://example.org)", "it")
    grown = await run(window, same + script, source)

    assert grown["isSame"]
    assert grown["touched"] == 0
    assert grown["raw"] == []


async def test_tasks_are_boxes_that_have_names_and_cannot_be_pressed(window: Window) -> None:
    script = f"""{_SHOWN}
      return all("input").map((one) =>
        [one.type, one.disabled, one.checked, one.labels[0].textContent.trim()]);
    """
    boxes = await run(window, script, NOTED)

    assert boxes == [
        ["checkbox", True, False, "see the mill"],
        ["checkbox", True, True, "see the tower (photo)"],
        ["checkbox", True, False, "from above"],
    ]
    assert "[y] no task" in await window.read("() => document.body.textContent")


async def test_footnotes_are_marks_and_texts_with_ids_of_their_own(window: Window) -> None:
    script = f"""{_SHOWN}
      const other = shown(given);
      document.querySelector("main").append(other);
      const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
      return [all("sup").map((one) => one.textContent),
        all(".footnote").map((one) => one.innerText.replace(/\\s+/g, " ").trim()),
        box.textContent.includes("no note[^2] of [^1]"),
        ids.length - new Set(ids).size,
        all("sup a, .footnote > a").filter((one) => !box.querySelector(one.hash)).length];
    """
    marks, notes, is_text, doubled, lost = await run(window, script, NOTED)

    assert marks == ["1", "high", "1"]
    assert notes == [
        r"1 Built in 1702, with \(x^2\) wheels.",
        "high Its height: 80 metres. measured",
        "1 Never shown as the first.",
    ]
    assert is_text
    assert (doubled, lost) == (0, 0)


async def test_a_footnote_leads_there_and_back_within_its_answer(site: Site) -> None:
    filler = "\n\n".join(["A line."] * 60)
    text = f"First[^1].\n\n{filler}\n\nSecond[^1].\n\n{filler}\n\n[^1]: The note."
    async with site.window(text) as window:
        for _ in range(2):
            await window.ask("notes")
            await window.ended()
        before = await window.read("() => location.href")
        first, second = (window.turns.first.locator("sup a").nth(at) for at in (0, 1))
        note = window.turns.first.locator(".footnote")

        await second.press("Enter")
        await expect(note).to_be_focused()
        await expect(note).to_be_in_viewport()
        await note.get_by_role("link").press("Enter")

        await expect(second).to_be_focused()
        await expect(second).to_be_in_viewport()
        await first.click()
        await expect(note).to_be_focused()
        await note.get_by_role("link").click()
        await expect(first).to_be_focused()
        assert await window.read("() => location.href") == before


async def test_a_footnote_can_be_read_while_the_answer_grows(site: Site) -> None:
    filler = "\n\n".join(["A line."] * 80)
    text = f"First[^1].\n\n[^1]: The note.\n\n{filler} {'and more words ' * 60}"
    async with site.window(text, delay=0.02) as window:
        await window.ask("notes")
        await window.says("and more words")

        await window.answer.locator("sup a").click()

        await expect(window.answer.locator(".footnote")).to_be_focused()
        await window.ended()
        await expect(window.answer.locator(".footnote")).to_be_in_viewport()
        await expect(window.answer.locator(".footnote")).to_be_focused()


HEBREW = """# כותרת

שלום, זה טקסט with English in it.

An English line.

- פריט ראשון
- a second item

  פסקה בפריט

> ציטוט

| עמודה | Column |
|-|-|
| תא | cell |

```
code = 1
```
"""


async def test_each_part_is_written_from_its_own_side_and_code_from_the_left(
    window: Window,
) -> None:
    script = f"""{_SHOWN}
      const side = (one) => getComputedStyle(one).direction;
      return ["h1", ".block > p", "li", "li > p", "blockquote", "table", "th, td", "pre"].map(
        (names) => all(names).map(side).join(" "));
    """
    sides = await run(window, script, HEBREW)

    assert sides == [
        "rtl",
        "rtl ltr",
        "rtl ltr",
        "rtl ltr rtl",
        "rtl",
        "rtl",
        "rtl ltr rtl ltr",
        "ltr",
    ]


async def test_a_question_from_right_to_left_is_shown_so(site: Site) -> None:
    async with site.window("כן") as window:
        await window.box.fill("שלום?")
        assert await side(window, "#box") == "rtl"
        await window.box.press("Enter")
        await window.ended()

        assert [await side(window, name) for name in (".said", ".text p")] == ["rtl", "rtl"]
        for place in ("#title", "#conversations a"):
            await expect(window.page.locator(place)).to_have_css("direction", "rtl")


async def side(window: Window, name: str) -> Any:
    return await window.read(
        "(name) => getComputedStyle(document.querySelector(name)).direction", name
    )


async def test_tags_of_html_are_shown_as_text(window: Window) -> None:
    source = (
        "A <b>bold</b> word<br>and <img src=x onerror=alert(1)> <!-- a note -->\n\n"
        "<details><summary>More</summary>\n\ninner\n\n</details>\n\n- <kbd>Ctrl</kbd>"
    )
    script = f"{_SHOWN} return [box.textContent, all('*').map((one) => one.localName)];"

    text, names = await run(window, script, source)

    assert [line for line in text.split("\n") if line] == [
        line.removeprefix("- ") for line in source.split("\n") if line
    ]
    assert set(names) == {"div", "p", "ul", "li"}


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_axe_finds_nothing_and_nothing_sticks_out(size: dict[str, int], site: Site) -> None:
    async with site.window(f"{NOTED}\n{HEBREW}", viewport=size) as window:
        for _ in range(2):
            await window.ask("all of it")
            await window.ended()
        found = await findings(window)
        wider = await window.read(
            "() => document.querySelector('#scroller').scrollWidth - innerWidth"
        )

    assert found == []
    assert wider <= 0
