from pathlib import Path
from typing import Any

import pytest

from tests.manifests.objects import find
from tests.manifests.rendering import RENDERED, render

Rendered = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Every kustomization's objects, by its name."""
    workspace: Path = tmp_path_factory.mktemp("rendered")
    return {name: render(name, workspace) for name in RENDERED}


@pytest.fixture
def guard(rendered: Rendered) -> dict[str, Any]:
    return find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard")


@pytest.fixture
def second(rendered: Rendered) -> dict[str, Any]:
    return find(rendered["base"], "ValidatingAdmissionPolicy", "tokenward-guard-configuration")


@pytest.fixture
def configuration(rendered: Rendered) -> dict[str, Any]:
    return find(rendered["base"], "ConfigMap", "tokenward-webhook")
