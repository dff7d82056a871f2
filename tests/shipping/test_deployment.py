"""The files of a deployment are whole, and what they call exists; no container engine is needed.

`make check-shipping` runs their steps in a fresh folder.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bot.app.platforms import WORKER, all_specs, load_settings, servers
from bot.app.service import choose_roles
from bot.app.shutdown import EXIT_SECONDS
from bot.store import Store
from config.settings import variables
from tests.emulators.model import ModelEmulator
from tests.support.process import ROOT, bot, model_variables, python
from tests.support.service import serving
from tests.support.settings import settings_of, value_of
from tests.support.waiting import until
from tests.support.web_page import web_variables

SETTINGS = set(variables(all_specs()))


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions with their arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def last_stage() -> list[tuple[str, str]]:
    found = dockerfile()
    return found[max(at for at, (name, _) in enumerate(found) if name == "FROM") :]


def image_environment() -> dict[str, str]:
    variables = next(value for name, value in last_stage() if name == "ENV")
    return dict(re.findall(r"(\w+)=(\S+)", variables))


def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def healthcheck() -> list[str]:
    [check] = [value for name, value in last_stage() if name == "HEALTHCHECK"]
    command: list[str] = json.loads(check.partition("CMD ")[2])
    return command


def calls() -> Iterator[tuple[str, list[str]]]:
    """Yield what each file calls: the arguments of `python -m bot`."""
    stage = dict(last_stage())
    assert json.loads(stage["ENTRYPOINT"]) == ["python", "-m", "bot"]
    yield "Dockerfile", json.loads(stage["CMD"])
    for name, service in compose()["services"].items():
        if service["image"] == "parley":
            yield f"compose.yaml: {name}", service["command"]
    for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield f"Procfile: {line}", shlex.split(line.partition("-m bot ")[2])
    yield "parley.service", shlex.split(unit()["Service"]["ExecStart"].partition("-m bot ")[2])


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "config" / "parley.service", encoding="utf-8")
    return parser


def test_every_file_calls_what_there_is() -> None:
    for where, (command, *roles) in calls():
        assert command == "run", where
        assert set(roles) <= {WORKER, *(spec.name for spec in all_specs())}, where


def test_the_image_runs_as_nobody_and_writes_to_its_volume_alone() -> None:
    stage = last_stage()
    user = next(value for name, value in stage if name == "USER")
    names = [name for name, _ in stage]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert ("VOLUME", "/data") in stage
    environment = image_environment()
    assert environment["DATA_DIR"] == environment["HOME"] == "/data"
    assert environment["PORT"] == str(settings_of().port)
    # /metrics is not on PORT there, because HOST is no loopback address.
    assert environment["METRICS_PORT"] in dict(stage)["EXPOSE"].split()


def test_the_image_installs_from_locks_with_hashes_and_the_core_alone() -> None:
    runs = [value for name, value in dockerfile() if name == "RUN" and "pip install" in value]

    assert runs
    assert all("--require-hashes" in one for one in runs)
    assert "-r requirements.lock" in runs[0]
    assert ("ARG", 'EXTRAS=""') in dockerfile()


def test_the_image_gets_what_it_copies_and_no_secret() -> None:
    copied = [value for name, value in dockerfile() if name == "COPY"]
    sources = [word for it in copied if it[0] != "-" for word in it.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    for source in sources:
        assert list(ROOT.glob(source)), source
        assert f"!{source}" in ignored, source
    assert "*" in ignored
    assert not any(".env" in line or "data" in line for line in ignored if line[:1] == "!")


def test_the_image_of_compose_reads_documents() -> None:
    for name in ("gateway", "worker"):
        extras = compose()["services"][name]["build"]["args"]["EXTRAS"].split()

        assert "files" in extras
        assert all((ROOT / f"requirements-{extra}.lock").is_file() for extra in extras)


async def test_the_image_is_healthy_while_the_bot_runs(
    own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    command = healthcheck()
    assert command[0] == "python"

    async def status(port: str) -> int | None:
        async with python(*command[1:], folder=tmp_path, variables={"PORT": port}) as process:
            await process.communicate()
        return process.returncode

    async with serving(own_store, "web", "worker", variables=web_variables(model)) as service:
        port = service.address.rpartition(":")[2]
        assert await status(port) == 0
    assert await status(port) == 1


def test_all_services_are_locked_down_and_reach_each_other() -> None:
    found = compose()
    services = found["services"]

    assert set(services) == {"gateway", "worker", "valkey", "prometheus"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        for volume in service["volumes"]:
            from_here = volume.startswith("./deploy:") and volume.endswith(":ro")
            assert from_here or volume.partition(":")[0] in found["volumes"], name
        # All that is published is for a proxy on the same machine.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    for name in ("gateway", "worker"):
        service = services[name]
        assert service["environment"]["REDIS_URL"] == "redis://valkey:6379/0"
        assert set(service["environment"]) <= SETTINGS
        assert int(service["stop_grace_period"].removesuffix("s")) > EXIT_SECONDS
        assert list(service["depends_on"]) == ["valkey"]
    assert "--appendonly" in services["valkey"]["command"]


def test_prometheus_scrapes_the_processes_of_the_deployment() -> None:
    services = compose()["services"]
    metrics = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text(encoding="utf-8"))
    [scraped] = [it for job in metrics["scrape_configs"] for it in job["dns_sd_configs"]]
    environment = image_environment()

    assert scraped["port"] == int(environment["METRICS_PORT"])
    for name in scraped["names"]:
        assert services[name]["environment"]["METRICS_HOST"] == "0.0.0.0"
        published = services[name].get("ports", ())
        assert not any(port.endswith(f":{scraped['port']}") for port in published)
    assert services["prometheus"]["profiles"] == ["metrics"]
    for file in metrics["rule_files"]:
        assert (ROOT / "deploy" / file).is_file()


def test_the_unit_lets_a_model_use_a_gpu_and_no_other_device() -> None:
    lines = (ROOT / "config" / "parley.service").read_text(encoding="utf-8").splitlines()

    assert "PrivateDevices=yes" not in lines
    assert "DevicePolicy=closed" in lines
    allowed = {line.split("=")[1] for line in lines if line.startswith("DeviceAllow=")}
    assert allowed == {"char-nvidia* rw", "char-drm rw", "char-kfd rw"}


def test_a_codespace_installs_what_make_run_needs() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    found = json.loads(text)
    made = found["onCreateCommand"].removeprefix("make ")

    assert f"\n{made.replace('.venv', '$(VENV)')}:" in (ROOT / "Makefile").read_text()
    assert found["forwardPorts"] == [value_of(settings_of(), "WEB_PORT")]


def test_the_unit_waits_for_the_bot_and_keeps_its_data() -> None:
    service = unit()["Service"]

    assert int(service["TimeoutStopSec"]) > EXIT_SECONDS
    environment = dict(pair.split("=") for pair in service["Environment"].split())
    assert environment["DATA_DIR"] == f"/var/lib/{service['StateDirectory']}"
    assert service["DynamicUser"] == "yes"


def unit_with(*settings: str) -> str:
    """Return the unit, of whose comments these settings count."""
    text = (ROOT / "config" / "parley.service").read_text(encoding="utf-8")
    for setting in settings:
        assert f"\n#{setting}=" in text
        text = text.replace(f"\n#{setting}=", f"\n{setting}=")
    return text


def test_a_credential_of_systemd_is_read_where_the_unit_says(tmp_path: Path) -> None:
    text = unit_with("LoadCredential", "Environment")
    [name] = re.findall(r"^LoadCredential=(\w+):/", text, re.M)
    lines = re.findall(r"^Environment=(.*)", text, re.M)
    environment = dict(pair.split("=") for line in lines for pair in line.split())
    (tmp_path / name).write_text("s3cret\n")

    here = {it: path.replace("%d", str(tmp_path)) for it, path in environment.items()}
    settings = load_settings({**here, "DATA_DIR": str(tmp_path)}, tmp_path / ".env")

    assert value_of(settings, "DISCORD_TOKEN") == "s3cret"


@pytest.mark.parametrize(
    "settings", [(), ("LoadCredential", "Environment"), ("LoadCredentialEncrypted", "Environment")]
)
def test_systemd_accepts_the_unit(settings: tuple[str, ...], tmp_path: Path) -> None:
    if not (systemd := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze checks the unit: install systemd")
    version = subprocess.run([systemd, "--version"], capture_output=True, text=True, check=True)
    if settings and int(re.findall(r"\d+", version.stdout)[0]) < 251:
        pytest.skip("its credentials need systemd 251")
    text = unit_with(*settings)
    copy = tmp_path / "parley.service"
    copy.write_text(text.replace("/opt/parley/.venv/bin/python", sys.executable))

    done = subprocess.run([systemd, "verify", copy], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_renovate_reads_the_locks_that_it_may_change() -> None:
    found = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
    [pattern] = found["pip-compile"]["managerFilePatterns"]
    locks = [path for path in ROOT.glob("*.lock") if re.search(pattern.strip("/"), path.name)]

    assert {path.name for path in ROOT.glob("*.lock")} - {path.name for path in locks} == {
        "requirements-demo.lock"
    }
    for lock in locks:
        # It repeats the command in the second line, and knows options with "=" alone.
        command = lock.read_text(encoding="utf-8").splitlines()[1]
        assert f"--output-file={lock.name}" in command
        assert not re.search(r" --(output-file|constraints|python-version) ", command)


def environment_of(service: str) -> dict[str, str]:
    """Return what compose and the image set for a process; `.env` is beside it."""
    image = image_environment()
    del image["PATH"]
    found: dict[str, str] = image | compose()["services"][service]["environment"]
    return found


@pytest.mark.parametrize("password", ["WEB_PASSWORD=long enough\n", ""])
def test_what_compose_publishes_is_where_the_gateway_listens(password: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DISCORD_TOKEN=x\nHF_TOKEN=x\n{password}")
    environment = environment_of("gateway") | {"DATA_DIR": str(tmp_path)}
    settings = load_settings(environment, tmp_path / ".env")
    published = [it.split(":")[2] for it in compose()["services"]["gateway"]["ports"]]

    listens = servers(settings, choose_roles((), settings))

    metrics = listens.pop("METRICS_PORT")
    assert metrics == ("0.0.0.0", int(environment["METRICS_PORT"]))
    # Without a way to sign in there is no page.
    assert {str(port) for _, port in listens.values()} == set(published[: 2 if password else 1])
    assert {host for host, _ in listens.values()} == {"0.0.0.0"}


async def test_a_gateway_of_compose_serves_its_page_its_health_and_its_metrics(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    # On any ports, and of this machine alone.
    here = dict.fromkeys(("PORT", "WEB_PORT", "METRICS_PORT"), "0")
    here |= dict.fromkeys(("HOST", "WEB_HOST", "METRICS_HOST"), "127.0.0.1")
    here |= {"REDIS_URL": own_store.url, "DATA_DIR": str(data_dir), "HOME": str(data_dir)}
    variables = {"WEB_PASSWORD": "long enough", **model_variables(model)}
    (data_dir / ".env").write_text("".join(f"{it}='{variables[it]}'\n" for it in variables))
    command, *roles = compose()["services"]["gateway"]["command"]
    assert command == "run"

    async def status(address: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            return answer.status

    def at(line: str) -> str:
        found = re.search(rf"{line}.*?(http://127\.0\.0\.1:\d+)", running.text())
        return found[1] if found else ""

    environment = environment_of("gateway") | here
    async with bot(*roles, data_dir=data_dir, variables=environment) as running:
        await until(lambda: "Running as" in running.text(), why=running.text)
        page, health = at("The page is at"), at("Listening on")
        metrics = at("Metrics on")
        assert await status(f"{page}/login") == 200
        assert [await status(f"{health}{path}") for path in ("/livez", "/readyz")] == [200, 200]
        assert await status(f"{health}/metrics") == 404
        assert await status(f"{metrics}/metrics") == 200
        port = {"METRICS_PORT": metrics.rpartition(":")[2]}
        shown = environment | port | {"PYTHONPATH": str(ROOT)}
        async with python("-m", "bot", "status", folder=data_dir, variables=shown) as process:
            await process.communicate()

    assert process.returncode == 0
