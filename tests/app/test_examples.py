"""The examples: those whose packages are installed are run, the others compiled."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from bench.browser import by_panel
from tests.emulators.model import ModelEmulator
from tests.support.chromium import missing, started
from tests.support.process import python
from tests.support.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_compiles_and_says_how_to_start_it(path: Path) -> None:
    tree = ast.parse(path.read_text())

    assert path.name.removesuffix(".py") in (ast.get_docstring(tree) or "")


def test_the_notebook_is_valid_and_its_cells_compile() -> None:
    notebook = json.loads((EXAMPLES / "ask.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    assert (notebook["nbformat"], len(cells)) == (4, 3)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


async def test_the_script_asks_about_each_file(tmp_path: Path, model: ModelEmulator) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"This is {name}.")
    arguments = (str(EXAMPLES / "ask_files.py"), "What is it?", "a.txt", "b.txt")
    async with python(*arguments, folder=tmp_path, variables={"MODEL_URL": model.url}) as process:
        printed, complaints = await process.communicate()

    assert complaints.decode() == ""
    answers = printed.decode().split("## ")[1:]
    assert [answer.split()[0] for answer in answers] == ["a.txt", "b.txt"]
    assert all("You said: What is it?" in answer for answer in answers)


# Asks the application over ASGI, as a server would.
_FASTAPI = """
from fastapi.testclient import TestClient
from examples.fastapi_app import app

with TestClient(app) as client:
    print(client.post("/ask", json={"text": "Hi", "history": [["One", "Two"]]}).json())
"""


@pytest.mark.skipif(not importlib.util.find_spec("fastapi"), reason="pip install fastapi httpx")
async def test_the_application_answers(tmp_path: Path, model: ModelEmulator) -> None:
    variables = {"MODEL_URL": model.url}
    async with python("-c", _FASTAPI, folder=tmp_path, variables=variables) as process:
        printed, complaints = await process.communicate()

    assert printed.decode() == "{'answer': 'You said: Hi'}\n", complaints.decode()
    assert [each["content"] for each in model.requests[0].messages[1:]] == ["One", "Two", "Hi"]


@pytest.mark.skipif(
    not importlib.util.find_spec("panel_material_ui"), reason="pip install panel panel-material-ui"
)
@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_a_person_has_a_conversation_in_the_panel_page(model: ModelEmulator) -> None:
    async with by_panel(sys.executable, model.url) as (address, _), started() as chromium:
        page = await chromium.new_page()
        hosts = set[str]()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        await page.goto(address)
        box = page.locator("textarea").first
        await box.fill("Hi")
        await box.press("Enter")
        await expect(page.get_by_text("You said: Hi", exact=True)).to_be_visible()
        model.answer = "It **grows**. ![cat](https://evil.example/cat.png) <b id=acted>raw</b>"
        await box.fill("And?")
        await box.press("Enter")
        await expect(page.get_by_text("<b id=acted>raw</b>")).to_be_visible()
        await expect(page.locator("strong").get_by_text("grows")).to_be_visible()
        model.answer = [(0.0, "on and on"), (600.0, "never")]
        await box.fill("More")
        await box.press("Enter")
        await expect(page.get_by_text("on and on")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await until(lambda: not model.running)

    said = [each["content"] for each in model.requests[1].messages[1:]]
    assert said == ["Hi", "You said: Hi", "And?"]
    # What stands in the page itself has no host.
    assert hosts - {""} == {urlsplit(address).netloc}
