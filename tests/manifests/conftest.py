from pathlib import Path
from typing import Any

import pytest

from tests.manifests.rendering import RENDERED, render

Rendered = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Every kustomization's objects, by its name."""
    workspace: Path = tmp_path_factory.mktemp("rendered")
    return {name: render(name, workspace) for name in RENDERED}
