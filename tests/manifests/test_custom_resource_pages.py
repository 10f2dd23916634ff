"""The pages about both kinds say what the schemas and the code do."""

import re
from pathlib import Path

from controller.api.conditions import Reason
from tests.manifests.reference import PAGE, page

CONDITIONS = Path(__file__).parents[2] / "docs/reference/conditions.md"
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_TYPES = {
    "Accepted", "Programmed", "CertificateReady", "Ready", "ConfigurationValid", "KeysReady",
    "CertificatesReady", "StorageReady", "Available", "NetworkPolicyReady",
}  # fmt: skip


def test_the_reference_is_that_of_the_schemas() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.manifests.reference"


def test_every_reason_is_explained_once_with_its_condition_and_a_remedy() -> None:
    rows = _ROW.findall(CONDITIONS.read_text("utf-8"))
    assert sorted(row[0] for row in rows) == sorted(Reason)
    for _, types, meaning, remedy in rows:
        assert set(types.split(", ")) <= _TYPES
        assert len(meaning.strip()) > 10
        assert remedy.strip()


def test_every_reason_is_used() -> None:
    sources = Path(__file__).parents[2].glob("controller/**/*.py")
    text = "".join(one.read_text() for one in sources if one.name != "conditions.py")
    text += (
        (CONDITIONS.parents[2] / "controller/api/conditions.py")
        .read_text()
        .split("class Condition")[1]
    )
    assert [one.name for one in Reason if f"Reason.{one.name}" not in text] == []
