"""The dashboard can be imported, and asks for metrics that exist."""

import re
from itertools import pairwise

import pytest
import yaml

from tests.manifests.test_alerts import described
from tests.monitoring.dashboard import Panel, document, panels
from tests.monitoring.rules import COMPONENT

PANELS = tuple(panels())
_METRIC = re.compile(r"\btokenward_[a-z_]+|\bprocess_[a-z_]+|\bup\b")
_LABELS = re.compile(r"by \(([^)]*)\)|\{(\w+)[=~]")


def test_it_is_what_grafana_imports() -> None:
    """A title, a stable uid, and its data source as a variable: no id of another Grafana."""
    found = document()
    assert (found["title"], found["uid"]) == ("Tokenward", "tokenward")
    assert "id" not in found
    assert [one["type"] for one in found["templating"]["list"]] == ["datasource"]
    for panel in found["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_panel_covers_another() -> None:
    places = sorted((panel.y, panel.x) for panel in PANELS)
    assert all(before != after for before, after in pairwise(places))
    assert {panel.x for panel in PANELS} == {0, 8, 16}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_asks_for_metrics_and_labels_that_exist(panel: Panel) -> None:
    metrics = described()
    for query in panel.queries:
        names = _METRIC.findall(query.expression)
        assert names, query.expression
        for name in names:
            assert name in metrics or not name.startswith("tokenward_"), name
        labels = {label for found in _LABELS.findall(query.expression) for label in found if label}
        wanted = {one.strip() for group in labels for one in group.split(",")}
        for label in wanted - {"le", "container", "job"}:
            assert any(f"`{label}`" in metrics[name] for name in names if name in metrics), label
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert label in wanted, (query.legend, query.expression)


def test_every_process_is_on_it() -> None:
    text = " ".join(query.expression for panel in PANELS for query in panel.queries)
    for process in ("authserver", "sidecar", "webhook", "controller"):
        assert f"tokenward_{process}_" in text


def test_the_component_ships_it_with_the_label_that_grafana_looks_for() -> None:
    component = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())
    (generator,) = component["configMapGenerator"]
    assert generator["files"] == ["tokenward.json=dashboard.json"]
    assert generator["options"]["labels"] == {"grafana_dashboard": "1"}
