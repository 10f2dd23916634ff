"""The corpus of paths, and the APIs that its verdicts are about."""

from pathlib import Path
from typing import NamedTuple

import yaml

from sidecar.apis import Api

REST = Api(
    name="rest",
    base_url="https://api.test",
    methods=("GET", "POST"),
    path_prefixes=("/repos", "/user", "/projects"),
    default=True,
    credential_headers=(),
    credential_parameters=(),
    link_members=(),
    search_answers=True,
    excluded_paths=("/user/keys", "/repos/*/*/keys"),
)
DRIVE = REST._replace(
    name="drive",
    base_url="https://www.test:8443/v3",
    path_prefixes=("/files",),
    default=False,
    excluded_paths=(),
)
APIS = (REST, DRIVE)


class Shape(NamedTuple):
    """A path, and either what goes out or why nothing does."""

    path: str
    sent: str | None = None
    refused: str | None = None


_TEXT = (Path(__file__).parent / "paths.yaml").read_text("utf-8")
SHAPES = [Shape(**entry) for entry in yaml.load(_TEXT, yaml.CSafeLoader)]
