"""The alert rules ask for metrics that exist, with labels and values that they have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_reference_pages import PROCESSES, named, rows

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "manifests/components/prometheus/rules.yaml"
# A metric of the API server.
FOREIGN = "apiserver_admission_webhook_rejection_count"
_SELECTOR = re.compile(r"([a-z][a-z0-9_]+_[a-z0-9_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)=~?"([^"]*)"')


def _alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["spec"]["groups"]:
        yield from group["rules"]


ALERTS = tuple(_alerts())


def described() -> dict[str, str]:
    """The text on labels of each metric, by its name in the reference."""
    found: dict[str, str] = {}
    for process in PROCESSES:
        for name, kind, labels, _ in rows("metrics.md", process):
            metric = named(name)
            found[metric] = found.get(metric, "") + labels
            if kind == "histogram":
                found[f"{metric}_bucket"] = labels
    return found


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_is_exposed(alert: dict[str, Any]) -> None:
    metrics = described()
    selectors = [
        selector for selector in _SELECTOR.findall(alert["expr"]) if "tokenward" in selector[0]
    ]
    assert selectors or FOREIGN in alert["expr"] or alert["expr"].startswith("up{")
    reasons = {named(row[0]) for row in rows("denials.md")}
    for metric, matchers in selectors:
        assert metric in metrics, metric
        for label, values in _MATCHER.findall(matchers):
            assert f"`{label}`" in metrics[metric], (metric, label)
            for value in values.split("|"):
                known = value in reasons if label == "reason" and "denials" in metric else False
                assert known or re.search(rf"\b{value}\b", metrics[metric]), (metric, value)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_means_and_how_bad_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    summary = alert["annotations"]["summary"]
    assert summary.endswith(".")
    for label in re.findall(r"\$labels\.(\w+)", summary):
        of_target = label in ("container", "pod") and "by (" not in alert["expr"]
        assert of_target or f"by ({label})" in alert["expr"]


def test_every_process_has_alerts() -> None:
    names = " ".join(alert["expr"] for alert in ALERTS)
    for process in ("authserver", "sidecar", "webhook", "controller"):
        assert f"tokenward_{process}_" in names


def test_the_reference_lists_every_alert_as_it_is() -> None:
    page = (ROOT / "docs/reference/alerts.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \| [A-Z]", page, re.MULTILINE)
    assert listed == [
        (alert["alert"], alert["labels"]["severity"], alert.get("for", "at once"))
        for alert in ALERTS
    ]
