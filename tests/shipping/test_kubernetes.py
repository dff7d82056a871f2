"""The manifests of deploy/kubernetes are what the API takes, and what they call exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache, partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from adapters.web.settings import WebSettings
from bot.app.platforms import WORKER, all_specs, check_settings, load_settings, servers
from bot.app.shutdown import EXIT_SECONDS
from config.settings import secret_files, variables
from tests.shipping.test_deployment import compose, image_environment, last_stage
from tests.support.process import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
SECRETS = "/run/secrets/parley"
# What the kubelet adds, also with enableServiceLinks off.
GIVEN = {
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.0.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.0.0.1:443",
    "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
    "KUBERNETES_PORT_443_TCP_PORT": "443",
    "KUBERNETES_PORT_443_TCP_ADDR": "10.0.0.1",
    "HOSTNAME": "gateway-5d4f",
}
# Of a secret in its file, by the file's name.
CONTENTS = {
    "redis_url": "redis://:s3cret@valkey:6379/0",
    "web_password": "long enough",
}


def kustomization() -> Any:
    return read("kustomization.yaml")[0]


def read(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def assignments(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def merged(one: Any, patch: Any) -> Any:
    """Return an object with a patch, as a strategic merge does it for what stands here."""
    if isinstance(one, dict) and isinstance(patch, dict):
        both = {key: merged(one[key], patch[key]) for key in one if key in patch}
        return {**patch, **one, **both}
    if isinstance(one, list) and one and isinstance(one[0], dict) and "name" in one[0]:
        named = {each["name"]: each for each in one}
        for each in patch:
            named[each["name"]] = merged(named.get(each["name"], {}), each)
        return list(named.values())
    return patch


@cache
def built() -> list[Any]:
    """Return what `kubectl kustomize` builds; the name of the settings has no hash."""
    about = kustomization()
    [patch], [image], [settings] = about["patches"], about["images"], about["configMapGenerator"]
    found = [one for name in about["resources"] for one in read(name)]
    change = read(patch["path"])[0]
    del change["metadata"]
    found = [merged(it, change) if it["kind"] == patch["target"]["kind"] else it for it in found]
    named = {"name": settings["name"]}
    data = {k: v for name in settings["envs"] for k, v in assignments(name).items()}
    found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": data})
    for one in found:
        one["metadata"]["namespace"] = about["namespace"]
        for container in pod(one).get("containers", ()):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def pod(one: Any) -> Any:
    return one["spec"]["template"]["spec"] if "template" in one.get("spec", {}) else {}


def of(kind: str) -> list[Any]:
    return [one for one in built() if one["kind"] == kind]


def container(deployment: Any) -> Any:
    [only] = pod(deployment)["containers"]
    return only


def environment(folder: Path) -> dict[str, str]:
    """Return exactly what a process of a pod gets; the secrets stand in this folder."""
    [settings] = of("ConfigMap")
    found: dict[str, str] = image_environment() | settings["data"] | GIVEN
    del found["PATH"]
    for name, text in found.items():
        if text.startswith(f"{SECRETS}/"):
            file = folder / Path(text).name
            file.write_text(CONTENTS.get(file.name, "s3cret") + "\n")
            found[name] = str(file)
    return found | {"DATA_DIR": str(folder)}


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_api_takes_every_object(version: str) -> None:
    for one in built():
        kubernetes_validate.validate(one, version, strict=True)


def test_kubectl_builds_the_same(tmp_path: Path) -> None:
    if not (kubectl := shutil.which("kubectl")):
        pytest.skip("kubectl builds the kustomization: install it")
    done = subprocess.run(
        [kubectl, "kustomize", FOLDER],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )

    theirs = re.sub(r"\b(parley-settings)-\w{10}\b", r"\1", done.stdout)

    def in_order(objects: Any) -> Any:
        # A list of named things is merged in another order.
        return sorted(json.dumps(by_name(one), sort_keys=True) for one in objects)

    assert in_order(yaml.safe_load_all(theirs)) == in_order(built())


def by_name(one: Any) -> Any:
    if isinstance(one, dict):
        return {key: by_name(value) for key, value in one.items()}
    if isinstance(one, list) and one and isinstance(one[0], dict):
        return sorted((by_name(each) for each in one), key=partial(json.dumps, sort_keys=True))
    return one


def test_every_file_is_listed_or_says_when_it_is() -> None:
    about = kustomization()
    listed = {*about["resources"], about["patches"][0]["path"], "settings.env"}
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")

    others = {path.name for path in FOLDER.iterdir()} - listed - {"kustomization.yaml"}

    assert others == {"keda.yaml"}
    assert "# - keda.yaml" in text


def test_each_process_starts_with_the_settings_of_its_pod(tmp_path: Path) -> None:
    given = environment(tmp_path)
    settings = load_settings(given, tmp_path / ".env")
    known = variables(all_specs())
    names = assignments("settings.env")

    assert set(names) <= {*known, *secret_files(known)}
    # No secret stands where everybody who may read the settings reads it.
    assert not any(not known[name].repr for name in names if name in known)
    assert settings.redis_url == CONTENTS["redis_url"]
    roles = [container(it)["args"] for it in of("Deployment")]
    assert roles == [["run", "discord", "slack"], ["run", WORKER], ["run", "web"]]
    for command, *named in roles:
        assert command == "run"
        check_settings(settings, frozenset(named))


def test_what_is_asked_of_a_pod_is_there(tmp_path: Path) -> None:
    settings = load_settings(environment(tmp_path), tmp_path / ".env")
    for deployment in of("Deployment"):
        it = container(deployment)
        ports = {port["name"]: port["containerPort"] for port in it["ports"]}
        listens = servers(settings, frozenset(it["args"][1:])).values()
        assert {("0.0.0.0", number) for number in ports.values()} == set(listens)
        asked = [it["startupProbe"], it["livenessProbe"], it["readinessProbe"]]
        paths = [probe["httpGet"]["path"] for probe in asked]
        is_page = it["args"] == ["run", "web"]
        assert paths == ["/livez", "/livez", "/livez" if is_page else "/readyz"]
        assert {probe["httpGet"]["port"] for probe in asked} == {"http"}
        about = deployment["spec"]["template"]["metadata"]["annotations"]
        assert int(about["prometheus.io/port"]) == ports["metrics"]
    [page] = [it for it in of("Service") if it["metadata"]["name"] == "web"]
    assert page["spec"]["ports"][0]["targetPort"] == "page"
    assert WebSettings.of(settings).port == ports["page"]


def test_a_pod_is_nobody_and_gets_its_time_to_end() -> None:
    for one in (*of("Deployment"), *of("StatefulSet")):
        spec = pod(one)
        assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
        assert spec["terminationGracePeriodSeconds"] > EXIT_SECONDS
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        its = container(one)["securityContext"]
        assert its["allowPrivilegeEscalation"] is False
        assert its["readOnlyRootFilesystem"] is True
        assert its["capabilities"] == {"drop": ["ALL"]}
    user = next(value for name, value in last_stage() if name == "USER")
    for deployment in of("Deployment"):
        context = pod(deployment)["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
        mounted = {it["mountPath"] for it in container(deployment)["volumeMounts"]}
        assert {image_environment()["DATA_DIR"], "/tmp", SECRETS} == mounted
        update = deployment["spec"]["strategy"]["rollingUpdate"]
        assert (update["maxSurge"], update["maxUnavailable"]) == (1, 0)


def test_all_that_selects_pods_selects_some() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in (*of("Deployment"), *of("StatefulSet"))
    ]
    selectors = [
        *(it["spec"]["selector"] for it in of("Service")),
        *(it["spec"]["selector"]["matchLabels"] for it in of("PodDisruptionBudget")),
        *(it["spec"]["podSelector"]["matchLabels"] for it in of("NetworkPolicy")),
        *(it["spec"]["selector"]["matchLabels"] for it in (*of("Deployment"), *of("StatefulSet"))),
    ]

    assert len(selectors) == 2 + 2 + 2 + 4
    for selector in selectors:
        assert any(selector.items() <= one.items() for one in labels), selector
    # A budget of what runs once would keep its node from being drained.
    assert all(
        it["spec"] == {**it["spec"], "maxUnavailable": 1} for it in of("PodDisruptionBudget")
    )


def test_valkey_runs_as_in_compose_behind_a_password_of_the_secrets() -> None:
    [valkey] = of("StatefulSet")
    theirs = compose()["services"]["valkey"]
    [file] = [volume["secret"] for volume in pod(valkey)["volumes"]]
    [service] = [it for it in of("Service") if it["metadata"]["name"] == "valkey"]

    args = container(valkey)["args"]

    assert container(valkey)["image"] == theirs["image"]
    assert [args[0], *args[2:]] == theirs["command"]
    assert args[1].endswith(f"/{file['items'][0]['path']}")
    url = CONTENTS["redis_url"]
    assert f"@{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/" in url


def test_keda_asks_for_a_metric_that_there_is() -> None:
    [scaled] = read("keda.yaml")
    [trigger] = scaled["spec"]["triggers"]
    metrics = set(re.findall(r"parley_\w+", trigger["metadata"]["query"]))
    documented = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")

    assert metrics
    assert all(f"`{name}{{" in documented for name in metrics)
    names = [it["metadata"]["name"] for it in of("Deployment")]
    assert scaled["spec"]["scaleTargetRef"]["name"] in names
