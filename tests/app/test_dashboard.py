"""The dashboard and the alert rules ask for metrics and labels that there are."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_SUFFIXES = ("", "_total", "_bucket", "_sum", "_count", "_info")


def expressions() -> Iterator[str]:
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    rules = (DEPLOY / "alerts.yaml").read_text()
    yield from re.findall(r"expr: \|\n((?: {10,}.*\n)+)", rules)
    yield from re.findall(r"expr: (?!\|)(.*)", rules)


@cache
def metrics() -> dict[str, set[str]]:
    """Return the labels of each metric that the source defines, by its name there."""
    found = {}
    sources = (*(ROOT / "bot").rglob("*.py"), *(ROOT / "adapters").rglob("*.py"))
    for source in (path.read_text() for path in sources):
        for node in ast.walk(ast.parse(source)) if "parley_" in source else ():
            match node:
                case ast.Call(args=[ast.Constant(value=str(name)), ast.Constant(), *labels]) if (
                    name.startswith("parley_")
                ):
                    found[name] = {*ast.literal_eval(labels[0])} if labels else set()
    return found


def samples() -> dict[str, set[str]]:
    """Return the labels of each sample that the metrics have, by its name."""
    more = {"le", "version", "python"}
    return {
        name.removesuffix(suffix) + suffix: labels | more
        for name, labels in metrics().items()
        for suffix in _SUFFIXES
    }


@pytest.mark.parametrize("expression", sorted({*expressions()}))
def test_each_expression_asks_for_what_there_is(expression: str) -> None:
    names = re.findall(r"\b(?:parley|process)_\w+|^up\b", expression)
    assert names
    ours = [name for name in names if name.startswith("parley_")]
    known = samples()
    assert {*ours} <= known.keys()
    labels = {*re.findall(r"\b(\w+)(?:=~?)\"", expression)}
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {*grouped.split(", ")}
    for name in ours:
        assert labels - {"job", "instance"} <= known[name]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "cure", "runbook"}, rule["alert"]


def test_an_alert_fires_when_the_bot_a_process_or_a_shard_is_gone() -> None:
    critical = {one["expr"]: one for one in rules() if one["labels"]["severity"] == "critical"}

    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    (job,) = [one["job_name"] for one in scraped]
    for expression in (
        "absent(parley_build_info)",
        f'up{{job="{job}"}} == 0',
        "parley_platform_connected == 0",
        "parley_discord_shard_connected == 0",
    ):
        assert critical[expression]["for"] == "2m"


def test_no_sum_hides_a_shard_that_is_gone() -> None:
    for name, chosen in (
        ("parley_platform_connected", '{instance=~"$instance"}'),
        ("parley_discord_shard_connected", '{instance=~"$instance", shard=~"$shard"}'),
    ):
        asked = {one for one in expressions() if name in one}

        assert asked == {name + chosen, f"{name} == 0"}


def test_the_dashboard_shows_a_process_a_shard_or_a_model() -> None:
    found = json.loads((DEPLOY / "grafana.json").read_text())
    chosen = {one["name"]: one for one in found["templating"]["list"]}
    known = samples()

    assert {*chosen} == {"datasource", "instance", "shard", "model"}
    for name in ("instance", "shard", "model"):
        metric, label = re.findall(r"\w+", chosen[name]["definition"])[1:]
        assert label == name
        assert metric in known
        assert name == "instance" or name in known[metric]
    for panel in found["panels"]:
        for expression in (target["expr"] for target in panel["targets"]):
            for metric, labels in re.findall(r"\b((?:parley|process)_\w+)({.*?})?", expression):
                of = {"instance", *known.get(metric, ())} & chosen.keys()
                assert labels, expression
                assert all(f'{it}=~"${it}"' in labels for it in of), expression


def test_each_metric_is_described_for_operators() -> None:
    told = (ROOT / "docs" / "operating.md").read_text()

    assert len(metrics()) > 15
    assert [name for name in metrics() if f"`{name}" not in told] == []
