"""The alert rules as they are, by `promtool`: each fires when it must, not before, and not else."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.cases import CASES, GONE, Case
from tests.monitoring.rules import alerts, rule_file

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; on Debian: apt-get install prometheus"
)
ALL = [(name, case) for name, case in CASES.items()] + [("TokenwardControllerWithoutLeader", GONE)]


def promtool(folder: Path, *arguments: str, only: str = "") -> str:
    """What it says of the rules, or of one. Raises AssertionError where it finds a fault."""
    spec = rule_file()
    for group in spec["groups"]:
        group["rules"] = [rule for rule in group["rules"] if only in ("", rule["alert"])]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    assert PROMTOOL is not None
    ran = subprocess.run(
        [PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def check(folder: Path, name: str, case: Case) -> None:
    """Let promtool run a case. Raises AssertionError."""
    tests = unit_test(name, case)
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    promtool(folder, "test", "rules", "test.yaml", only=name)


def summary(name: str, labels: dict[str, str]) -> str:
    """The summary with the labels of the firing alert put in."""
    text: str = alerts()[name]["annotations"]["summary"]
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)


def unit_test(name: str, case: Case) -> list[dict[str, Any]]:
    labels = case.labels | alerts()[name]["labels"]
    firing = {"exp_labels": labels, "exp_annotations": {"summary": summary(name, case.labels)}}

    def at(time: str, expected: list[dict[str, Any]]) -> dict[str, Any]:
        return {"eval_time": time, "alertname": name, "exp_alerts": expected}

    def test(series: dict[str, str], *looks: dict[str, Any]) -> dict[str, Any]:
        inputs = [{"series": which, "values": values} for which, values in series.items()]
        return {"interval": "1m", "input_series": inputs, "alert_rule_test": list(looks)}

    return [
        test(case.series, at(case.silent_until, []), at(case.fires_by, [firing])),
        test(case.quiet, *(at(time, []) for time in (case.silent_until, case.fires_by, "60m"))),
    ]


def test_every_alert_has_its_case() -> None:
    assert set(CASES) == set(alerts())


@needs_promtool
def test_the_rules_are_well_formed(tmp_path: Path) -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool(
        tmp_path, "check", "rules", "rules.yaml"
    )


@needs_promtool
@pytest.mark.parametrize(("name", "case"), ALL)
def test_an_alert_fires_in_time_and_not_without_its_cause(
    tmp_path: Path, name: str, case: Case
) -> None:
    check(tmp_path, name, case)


@needs_promtool
@pytest.mark.parametrize("name", ["TokenwardStorageDown", "TokenwardClientCAExpired"])
def test_promtool_notices_an_alert_that_fires_too_early(tmp_path: Path, name: str) -> None:
    """So that a green run above says something."""
    case = CASES[name]
    early = Case(case.series, case.fires_by, case.fires_by, case.quiet, case.labels)
    with pytest.raises(AssertionError, match=name):
        check(tmp_path, name, early)
