"""PodCertificateRequests of a running controller, from the kubelet's question to the answer."""

import json
from datetime import timedelta

import pytest

from controller.api.kinds import ADMISSION_POLICY, EVENT, POD_CERTIFICATE_REQUEST, SECRET
from controller.api.objects import Key
from controller.reconcile import guard
from tests.controller.pod_requests import REQUEST, answer, put_pod, put_request
from tests.controller.running import SIDECAR, Site, running
from tests.controller.samples import condition, stamp

PER_POD = {"workloads": {"source": "PodCertificate", "duration": "24h"}}


def events(site: Site) -> list[str]:
    """Of pods: type, reason and kind."""
    return [
        f"{one['type']} {one['reason']} Pod"
        for (kind, _), one in site.api.objects.items()
        if kind == EVENT and one["involvedObject"]["kind"] == "Pod"
    ]


async def test_an_accepted_server_gets_its_certificate_and_no_secret() -> None:
    site = Site()
    site.put_auth_server(certificates=PER_POD)
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        put_request(site)
        await site.until(lambda: answer(site) == ("Issued", "Issued"))
        await site.until(lambda: "Normal CertificateIssued Pod" in events(site))
    assert not [
        key for kind, key in site.api.objects if kind == SECRET and key.name == "notes-tokenward"
    ]
    found = site.api.found(POD_CERTIFICATE_REQUEST, REQUEST)
    assert found["status"]["certificateChain"].startswith("-----BEGIN CERTIFICATE")


async def test_a_request_waits_for_its_server_and_is_denied_when_it_never_comes() -> None:
    site = Site()
    site.put_auth_server(certificates=PER_POD)
    async with running(site):
        await site.until(lambda: bool(site.auth_status().get("conditions")))
        put_request(site)
        await site.quiet()
        assert answer(site) is None
        site.put_server()
        await site.until(lambda: site.is_so("Accepted", "True"))
        await site.until(lambda: answer(site) == ("Issued", "Issued"))

    late = Site()
    late.put_auth_server(certificates=PER_POD)
    async with running(late):
        await late.until(lambda: bool(late.auth_status().get("conditions")))
        put_request(late)
        found = late.api.objects.pop((POD_CERTIFICATE_REQUEST, REQUEST))
        found["metadata"]["creationTimestamp"] = stamp(-timedelta(minutes=6))
        found["metadata"]["name"] = "req"
        late.api.put(found)
        await late.until(lambda: answer(late) == ("Denied", "NotAccepted"))


async def test_another_image_is_denied_and_a_former_one_is_not() -> None:
    former = f"registry.example.com/tokenward/sidecar@sha256:{'f' * 64}"
    site = Site()
    site.put_auth_server(certificates=PER_POD)
    site.put_server()
    recorded = f'{{"{former}": "{stamp(timedelta(hours=1))}"}}'
    site.api.put(
        {
            "apiVersion": ADMISSION_POLICY.api_version,
            "kind": ADMISSION_POLICY.kind,
            "metadata": {
                "name": "tokenward-guard-configuration",
                "annotations": {guard.IMAGES: recorded},
            },
            "spec": {"variables": [{"name": "lines", "expression": "['']"}]},
        }
    )
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        put_request(site)
        await site.until(lambda: answer(site) == ("Issued", "Issued"))
        for image, expected in ((former, "Issued"), (former.replace("f", "e"), "Denied")):
            site.api.remove(POD_CERTIFICATE_REQUEST, REQUEST)
            put_request(site)
            put_pod(site, image=image)
            await site.until(lambda expected=expected: (answer(site) or ("",))[0] == expected)  # type: ignore[misc]
        policy = Key("", "tokenward-guard-configuration")

        def written() -> str:
            spec = site.api.found(ADMISSION_POLICY, policy)["spec"]
            return str(spec["variables"][0]["expression"])

        await site.until(lambda: f"image: {SIDECAR}" in written())
        assert f"image: {former}" in written()


@pytest.mark.parametrize("change", [{"restartPolicy": "Never"}, {"command": ["sh"]}])
async def test_a_pod_that_is_not_intact_is_denied_with_an_event(change: dict[str, object]) -> None:
    site = Site()
    site.put_auth_server(certificates=PER_POD)
    site.put_server()
    async with running(site):
        await site.until(lambda: site.is_so("Ready", "True"))
        put_request(site)
        site.api.remove(POD_CERTIFICATE_REQUEST, REQUEST)
        put_request(site)
        put_pod(site, **change)
        await site.until(lambda: (answer(site) or ("",))[0] == "Denied")
        await site.until(lambda: any(one.startswith("Warning") for one in events(site)))


@pytest.mark.parametrize(("over", "expected"), [(0, "Issued"), (1, "Denied")])
async def test_a_pod_made_in_its_images_last_day_keeps_its_identity(
    over: int, expected: str
) -> None:
    """The pod is made now; its image's last day was over `over` hours before."""
    former = f"registry.example.com/tokenward/sidecar@sha256:{'f' * 64}"
    site = Site()
    site.put_auth_server(certificates=PER_POD)
    site.put_server()
    put_pod(site, image=former)
    site.api.put(
        {
            "apiVersion": ADMISSION_POLICY.api_version,
            "kind": ADMISSION_POLICY.kind,
            "metadata": {
                "name": "tokenward-guard-configuration",
                "annotations": {guard.IMAGES: json.dumps({former: stamp(-timedelta(hours=over))})},
            },
            "spec": {"variables": [{"name": "lines", "expression": "['']"}]},
        }
    )
    async with running(site):
        await site.until(lambda: site.auth_status().get("phase") == "Degraded")
        await site.until(lambda: condition(site.auth_status(), "Ready")[0] == "True")
        assert condition(site.auth_status(), "Ready") == ("True", "OldSidecarAllowed")
        put_request(site)
        put_pod(site, image=former)
        await site.until(lambda: answer(site) is not None)
    assert (answer(site) or ("", ""))[0] == expected
    (policy,) = (one for (kind, _), one in site.api.objects.items() if kind == ADMISSION_POLICY)
    assert former not in str(policy["spec"])
    assert former in policy["metadata"]["annotations"][guard.IMAGES]
