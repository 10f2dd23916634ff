"""Attach alone holds against the code, not against those who read the key (amendment 30)."""

from typing import Any

import pytest

from controller.api.kinds import EVENT
from tests.controller.running import Site, running
from tests.controller.samples import condition

BUILT_IN = {"source": "BuiltIn", "duration": "24h"}
PER_POD = {"source": "PodCertificate", "duration": "24h"}


def warnings(site: Site) -> list[str]:
    return [
        str(one["reason"])
        for (kind, _), one in site.api.objects.items()
        if kind == EVENT and one["type"] == "Warning" and one["involvedObject"]["name"] == "notes"
    ]


@pytest.mark.parametrize(
    ("workloads", "release", "expected"),
    [
        (BUILT_IN, ["Attach"], "KeyReadableInNamespace"),
        (BUILT_IN, ["HandOut", "Attach"], "Ready"),
        (PER_POD, ["Attach"], "Ready"),
    ],
)
async def test_a_key_in_a_secret_is_said_where_tokens_are_for_attach_alone(
    workloads: dict[str, Any], release: list[str], expected: str
) -> None:
    site = Site()
    server = {"source": "BuiltIn", "duration": "2160h"}
    site.put_auth_server(certificates={"workloads": workloads, "server": server})
    site.put_server(release=release)
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        assert condition(site.status(), "Ready") == ("True", expected)
        if expected != "Ready":
            await site.until(lambda: expected in warnings(site))
        else:
            assert warnings(site) == []
