"""Both ends of the files: what the controller renders, the authserver and the webhook accept."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import webhook.settings
from authserver import listener_tls
from authserver.config.loader import load
from authserver.config.resource_files import ResourceFiles
from controller.issuing import authority, rotation
from controller.issuing.authority import new_key
from controller.reconcile import resource_map
from controller.reconcile import webhook as reconcile_webhook
from controller.settings import WebhookSettings
from tests.controller.running import SIDECAR
from tests.controller.samples import MAKERS, NOW, auth_server, server
from tests.controller.test_auth_server_plan import Site
from tests.support.pod_volumes import localised, mount


def mounted(site: Site, folder: Path) -> Path:
    """The running pod's files; the configuration file."""
    observed = site.observed
    assert observed.deployment is not None
    stores = {"Secret": observed.secrets, "ConfigMap": observed.config_maps}

    def find(kind: str, name: str) -> Mapping[str, Any] | None:
        return stores[kind].get(name)

    mount(observed.deployment["spec"]["template"]["spec"], find, folder)
    file = folder / "etc/tokenward/authserver.yaml"
    file.write_text(localised(file.read_text(), folder, "127.0.0.1"))
    return file


def test_the_authserver_accepts_what_is_rendered_of_ten_lines(tmp_path: Path) -> None:
    settings = load(mounted(Site().installed(), tmp_path))
    assert settings.issuer == "https://auth.example.com"
    assert [one.name for one in settings.upstreams] == ["github", "slack"]
    assert settings.upstreams[0].client_secret() == "x"
    assert settings.resources_folder == tmp_path / "var/run/tokenward/resources"
    # Certificates are of NOW, and these checks make handshakes with the wall clock.
    expired = [str(one) for one in listener_tls.faults(settings)]
    assert all("expired" in one or "valid" in one for one in expired), expired


def test_every_member_that_is_passed_word_for_word_arrives(tmp_path: Path) -> None:
    site = Site(
        configuration={
            "lifetimes": {"accessToken": "5m"},
            "limits": {"connections": 7},
            "clients": {"registration": {"enabled": False}},
            "pages": {"title": "Ours"},
            "trustedProxies": ["10.0.0.0/8"],
            "logLevel": "debug",
        }
    ).installed()
    settings = load(mounted(site, tmp_path))
    assert settings.lifetimes.access_token == 300
    assert settings.limits.connections == 7
    assert not settings.clients.registration.enabled
    assert settings.pages.title == "Ours"
    assert settings.listeners.public.trusted_proxies
    assert settings.log_level == "debug"


def test_rotated_signing_keys_are_a_configuration_that_is_accepted(tmp_path: Path) -> None:
    site = Site().installed()
    secrets = dict(site.observed.secrets)
    names = [
        "signing-20260101000000.pem",
        "signing-20261127000000.pem",
        "signing-20261128110000.pem",
    ]
    data = {name: authority.key_pem(new_key()) for name in names}
    secrets["main-signing"] = {**secrets["main-signing"], "data": rotation.encoded(data)}
    site.observed = replace(site.observed, secrets=secrets)
    site.step()
    site.check("Complete")
    site.step()
    keys = load(mounted(site, tmp_path)).signing_keys
    assert [(one.file.name, one.announced, one.retired_at is not None) for one in keys] == [
        (names[1], False, False), (names[2], True, False), (names[0], False, True),
    ]  # fmt: skip


def test_the_authserver_puts_the_shards_into_force(tmp_path: Path) -> None:
    servers = [
        server(f"s{n}", resource=f"https://s{n}.mcp.example.com/mcp", scopes=["mcp"])
        for n in range(50)
    ]
    built = resource_map.build(servers)
    for number, text in enumerate(built.shards):
        (tmp_path / resource_map.file_name(number)).write_text(text)
    site = Site().installed()
    upstreams = load(mounted(site, tmp_path / "pod")).upstreams
    files = ResourceFiles(tmp_path)
    entries = files.entries([], upstreams)
    assert {one.url for one in entries} == {one.resource for one in servers}
    assert all(one.owned_since is not None for one in entries)
    assert dict(files.in_force) == {
        resource_map.file_name(number): digest for number, digest in enumerate(built.hashes)
    }


@pytest.mark.parametrize("source", ["BuiltIn", "PodCertificate"])
def test_the_webhook_accepts_what_is_rendered_for_it(tmp_path: Path, source: str) -> None:
    main = auth_server(certificates={"workloads": {"source": source}})
    turn = rotation.Rotation(
        authority.servers("tokenward-system", "cluster.local"),
        main.server_certificates.duration * 4,
        main.server_certificates.duration,
    )
    state = rotation.first(turn, NOW, new_key)
    settings = WebhookSettings.model_validate(
        {"authServer": "main", "configuration": {"image": SIDECAR, "profiles": {"default": {}}}}
    )
    observed = reconcile_webhook.Observed(
        main, (server(), server("b")), state.bundle, state, None, None
    )
    plan = reconcile_webhook.plan(settings, observed, "cluster.local", NOW, MAKERS)
    secret, config_map = plan.apply
    (tmp_path / "ca.crt").write_bytes(rotation.decoded(secret)["ca.crt"])
    text = config_map["data"]["webhook.yaml"]
    raw = yaml.safe_load(text.replace(reconcile_webhook.CA_FILE, "ca.crt"))
    checked = webhook.settings.check(raw, tmp_path)
    assert checked.identity.source == ("secret" if source == "BuiltIn" else "podCertificate")
    assert checked.resources[("mcp-servers", "notes")] == "https://notes.mcp.example.com/mcp"
    # The guard's parameter is read line by line.
    for line in (
        f"image: {SIDECAR}",
        "issuer: https://auth.example.com",
        "trustDomain: cluster.local",
        "  url: https://main-internal.tokenward-system.svc:8443",
    ):
        assert line in text.splitlines()
    # What the webhook writes into pods is what the controller compares with.
    assert checked.authserver.ca_file.pem == reconcile_webhook.pod_annotation(state.bundle)


def test_ten_thousand_entries_fit_and_one_change_rewrites_one_shard() -> None:
    servers = [
        server(
            f"server-{n:05}", f"namespace-{n % 97}", resource=f"https://s{n}.mcp.example.com/mcp"
        )
        for n in range(10_000)
    ]
    before = resource_map.build(servers)
    assert before.left_out == frozenset()
    assert all(len(one) < resource_map.MAX_SHARD_BYTES for one in before.shards)
    assert min(len(one) for one in before.shards) * 2 > max(len(one) for one in before.shards)
    after = resource_map.build(servers[1:])
    assert sum(a != b for a, b in zip(before.shards, after.shards, strict=True)) == 1


def test_an_entry_without_room_is_left_out_and_the_oldest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource_map, "MAX_SHARD_BYTES", 1000)
    servers = [
        server(f"s{n}", resource=f"https://s{n}.mcp.example.com/mcp", uid=f"{n:03}")
        for n in range(200)
    ]
    built = resource_map.build(servers)
    assert built.left_out
    assert all(len(one) <= 1000 + 20 for one in built.shards)
    assert built == resource_map.build(servers[::-1])
