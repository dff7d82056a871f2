"""What is shipped, installed in fresh folders: `make check-shipping`, not part of `make test`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bot
from tests.emulators.model import ModelEmulator
from tests.shipping.test_deployment import dockerfile, healthcheck, last_stage
from tests.support.process import ROOT
from tests.support.waiting import until

CORE_BYTES = 90_000_000  # without Python, pip and compiled files; about 80 MB in docs/deploying.md
NOBODY = 65534


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """Run a command to its end and return what it printed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, as a clone has it."""
    folder = tmp_path_factory.mktemp("tree") / "parley"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "data", "build", "*.egg-info", "tests")
    shutil.copytree(ROOT, folder, ignore=skipped)
    return folder


def install(tree: Path, folder: Path, *, extras: str) -> Path:
    """Run the commands of the image's first stage; returns the Python of its environment."""
    for name, command in dockerfile()[: -len(last_stage())]:
        if name == "RUN":
            here = command.replace("/opt/parley", str(folder))
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            run("/bin/sh", "-c", here, folder=tree, PATH=path, EXTRAS=extras)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def core(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Python of an environment with the core alone."""
    return install(tree, tmp_path_factory.mktemp("core"), extras="")


def test_the_image_may_have_extras(tree: Path, tmp_path: Path) -> None:
    python = install(tree, tmp_path, extras="files terminal web otel sentry")

    packages = "pypdf, openpyxl, prompt_toolkit, joserfc, opentelemetry.sdk, sentry_sdk"
    run(python, "-c", f"import {packages}", folder=tmp_path)


def build(tree: Path, folder: Path) -> Path:
    """Return a wheel of the project."""
    copy = folder / "tree"
    shutil.copytree(tree, copy)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, copy, folder=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_core_is_small(core: Path) -> None:
    files = [path for path in (core.parents[1] / "lib").rglob("*") if path.is_file()]
    ours = [path for path in files if "pip" not in path.parts and path.suffix != ".pyc"]

    assert sum(path.stat().st_size for path in ours) < CORE_BYTES


async def test_a_wheel_gives_the_command_with_all_its_files(
    tree: Path, core: Path, tmp_path: Path, model: ModelEmulator
) -> None:
    model.answer = "Paris."
    run(core, "-m", "pip", "install", "--no-deps", build(tree, tmp_path), folder=tmp_path)
    parley, empty = core.with_name("parley"), tmp_path / "empty"
    empty.mkdir()

    version = run(parley, "--version", folder=empty)
    answer = await asyncio.to_thread(
        run, parley, "ask", "Which city?", folder=empty, MODEL_URL=model.url
    )

    assert version == f"Parley {bot.__version__}\n"
    assert answer == "Paris.\n"
    packed = run(core, "-m", "pip", "show", "--files", "parley", folder=empty).split()
    for name in ("bot", "adapters", "config"):
        for path in (tree / name).rglob("*.*"):
            assert str(path.relative_to(tree)) in packed


async def test_an_installation_from_the_folder_brings_what_it_needs(
    tree: Path, tmp_path: Path, model: ModelEmulator
) -> None:
    """As `pipx install .` and `uvx --from .` do."""
    model.answer = "Paris."
    copy, own, empty = tmp_path / "tree", tmp_path / "own", tmp_path / "empty"
    shutil.copytree(tree, copy)
    empty.mkdir()
    run(sys.executable, "-m", "venv", own, folder=tmp_path)
    run(own / "bin" / "python", "-m", "pip", "install", copy, folder=tmp_path)
    parley = own / "bin" / "parley"

    answer = await asyncio.to_thread(
        run, parley, "ask", "Which city?", folder=empty, MODEL_URL=model.url
    )
    set_up = run(parley, "init", "--yes", folder=empty)

    assert answer == "Paris.\n"
    assert "Start the bot with `parley run`" in set_up
    assert [path.name for path in empty.iterdir()] == [".env"]


def test_the_first_step_of_a_codespace_lets_make_run_answer(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())

    run("/bin/sh", "-c", container["onCreateCommand"], folder=copy)
    said = run("/bin/sh", "-c", "echo 'Who are you?' | make run", folder=copy)

    assert said.strip()


def lay_out(tree: Path, core: Path, app: Path, data: Path) -> None:
    """Make a folder that all may read and nobody may write to, and one for data."""
    for name, value in last_stage():
        match name, value.split():
            case "COPY", [source, target] if not source.startswith("-"):
                shutil.copytree(tree / source, app / target)
            case "RUN", [command, *arguments] if command.startswith("/opt/parley/"):
                run(core, *arguments, folder=app)
    data.mkdir(mode=0o700)
    for path in (app, *app.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    # Else the test would show nothing.
    touching = [*powerless(), "touch", str(app / "bot" / "new")]
    assert subprocess.run(touching, capture_output=True).returncode


def powerless() -> list[str]:
    """Return what to put before a command, so that root, too, writes only to what it owns."""
    caps = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return ["setpriv", *caps] if os.geteuid() == 0 else []


async def test_the_steps_of_the_image_start_a_healthy_bot_without_rights(
    tree: Path, core: Path, data_dir: Path, model: ModelEmulator
) -> None:
    app, data = data_dir / "app", data_dir / "data"
    lay_out(tree, core, app, data)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    [written] = [value for name, value in last_stage() if name == "ENV"]
    environment = {
        name: value.replace("/opt/parley", str(core.parents[1]))
        .replace("/data", str(data))
        .replace("$PATH", os.environ["PATH"])
        for name, value in (one.split("=", 1) for one in written.split())
    } | {"PORT": port, "WEB_PORT": "0", "MODEL_URL": model.url, "WEB_PASSWORD": "open sesame"}
    stage = dict(last_stage())
    before = sorted(app.rglob("*"))
    process = await asyncio.create_subprocess_exec(
        *(*powerless(), *json.loads(stage["ENTRYPOINT"]), *json.loads(stage["CMD"])),
        cwd=app,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    check = [str(core), *healthcheck()[1:]]

    def is_healthy() -> bool:
        assert process.returncode is None
        return not subprocess.run(check, env=environment, capture_output=True).returncode

    try:
        await until(is_healthy)
        process.terminate()
        async with asyncio.timeout(25):
            _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, log.decode()
    assert sorted(app.rglob("*")) == before
    assert (data / "store").is_dir()


def test_schemas_accept_the_files_of_a_deployment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "tool", folder=tmp_path)
    tool = tmp_path / "tool" / "bin"
    run(tool / "python", "-m", "pip", "install", "check-jsonschema", folder=tmp_path)

    for schema, file in (("compose-spec", "compose.yaml"), ("renovate", "renovate.json")):
        check = tool / "check-jsonschema"
        found = run(
            check,
            "--builtin-schema",
            f"vendor.{schema}",
            "-o",
            "json",
            ROOT / file,
            folder=tmp_path,
        )
        assert json.loads(found)["status"] == "ok"
