"""The alert rules are those that Prometheus reads, and each has its paragraph for operators."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.app.test_dashboard import rules
from tests.support.process import ROOT

RULES = ROOT / "deploy" / "alerts.yaml"
CASES = ROOT / "tests" / "shipping" / "alerts.yaml"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if not (command := shutil.which("promtool")):
        pytest.skip("promtool checks the alert rules: install prometheus")
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)


def paragraphs() -> dict[str, str]:
    """Return the paragraphs about alerts in docs/operating.md, by their headings."""
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    _, *parts = re.split(r"(?m)^### ", section)
    return {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}


def test_each_alert_leads_to_a_paragraph_that_says_how_bad_it_is() -> None:
    told = paragraphs()

    assert [rule["alert"] for rule in rules()] == [*told]
    for rule in rules():
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"
        assert told[name].startswith(f"{rule['labels']['severity'].capitalize()}. "), name


def test_prometheus_reads_the_rules() -> None:
    for what, file in (("rules", RULES), ("config", RULES.with_name("prometheus.yaml"))):
        done = promtool("check", what, file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", CASES)

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_case() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', CASES.read_text(encoding="utf-8")))

    assert fired == {rule["alert"] for rule in rules()}


def test_no_rule_can_be_broken_unseen(tmp_path: Path) -> None:
    cases = CASES.read_text(encoding="utf-8").replace("../../deploy/alerts.yaml", "alerts.yaml")
    (tmp_path / "cases.yaml").write_text(cases, encoding="utf-8")
    for rule in rules():
        text = RULES.read_text(encoding="utf-8")
        (group,) = (found := yaml.safe_load(text))["groups"]
        [broken] = [one for one in group["rules"] if one["alert"] == rule["alert"]]
        broken["expr"] = f"({broken['expr']}) and vector(0) > 1"
        (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")

        assert promtool("test", "rules", tmp_path / "cases.yaml").returncode, rule["alert"]
