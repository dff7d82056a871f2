"""The examples: those whose packages are installed are run, the others compiled."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from tests.emulators.model import ModelEmulator
from tests.support.process import python

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
async def test_the_panel_page_can_be_made(tmp_path: Path, model: ModelEmulator) -> None:
    text = "import runpy; print(runpy.run_path('{}')['chat'].callback_user)"
    script = text.format(EXAMPLES / "panel_chat.py")
    variables = {"MODEL_URL": model.url}
    async with python("-c", script, folder=tmp_path, variables=variables) as process:
        printed, complaints = await process.communicate()

    assert printed.decode() == "Parley\n", complaints.decode()
