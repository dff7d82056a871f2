"""Code and tables of the page are saved as files, made in the browser of what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.chromium import PHONE, WIDE, Site, Window

CODE = "def f(x):\n\treturn x < 1 & '@everyone'  # é 日\n\n"
ANSWER = f"""Here:

```Python
{CODE}```

| name | **value** | link |
|---|--:|---|
| a, "b" | -5 % | [there](https://example.org) |
| =HYPERLINK("x") | @SUM(A1) | `+1+cmd` |

```constructor
<script>alert(1)</script>
```

```html
<p>
```
"""
CSV = (
    '\ufeff"name","value","link"\r\n'
    '"a, ""b""","-5 %","there"\r\n'
    '"\'=HYPERLINK(""x"")","\'@SUM(A1)","\'+1+cmd"\r\n'
)


def content_of(path: Path) -> str:
    return path.read_bytes().decode()


async def saved(window: Window, number: int) -> tuple[str, str]:
    """Press the Save button of this number; return the name and the content of the file."""
    async with window.page.expect_download() as waiting:
        await window.answer.get_by_role("button", name="Save").nth(number).click()
    download = await waiting.value
    return download.suggested_filename, content_of(await download.path())


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
async def test_each_block_of_code_and_each_table_can_be_saved(site: Site, viewport: Any) -> None:
    async with site.window(ANSWER, viewport=viewport) as window:
        await window.ask("Write it.")
        await window.ended()
        await expect(window.answer.get_by_role("button", name="Save")).to_have_count(4)

        files = [await saved(window, number) for number in range(4)]

        assert files == [
            ("answer.py", CODE),
            ("table.csv", CSV),
            ("answer.txt", "<script>alert(1)</script>\n"),
            ("answer.html.txt", "<p>\n"),
        ]


async def test_the_button_of_a_table_stands_below_its_first_column(site: Site) -> None:
    async with site.window(ANSWER, viewport=PHONE) as window:
        await window.ask("Write it.")
        await window.ended()

        left = await window.read(
            """() => [".table th", ".table button"].map((selector) => {
              const range = document.createRange();
              range.selectNodeContents(document.querySelector(selector));
              return range.getBoundingClientRect().left;
            })"""
        )

    assert abs(left[0] - left[1]) < 2


async def test_coloured_code_is_saved_as_it_was_written(site: Site) -> None:
    async with site.window(f"```python\n{CODE}```") as window:
        await window.ask("Write it.")
        await window.ended()
        await window.page.wait_for_selector("[data-coloured]")

        assert await saved(window, 0) == ("answer.py", CODE)
