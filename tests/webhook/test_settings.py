"""The operator's configuration: every fault at once, and the last good one kept."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.process import ConfigurationError
from tests.support.server_certificates import Authority
from tests.webhook.pods import IMAGE, raw_settings
from webhook import readiness_check
from webhook.config_watcher import Configuration
from webhook.settings import Settings, check, load


def _faults(**changes: Any) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as bad:
        check(raw_settings(**changes), Path())
    return {fault.path: fault.problem for fault in bad.value.faults}


@pytest.mark.parametrize(
    "image",
    [
        "registry.example.com/tokenward/sidecar",
        "registry.example.com/tokenward/sidecar:latest",
        "registry.example.com/tokenward/sidecar:1.2.3",
        f"{IMAGE[:-1]}",
        f"{IMAGE}\n",
        f" {IMAGE}",
        "",
    ],
)
def test_an_image_without_a_digest_is_refused(image: str) -> None:
    assert "digest" in _faults(image=image)["image"]


@pytest.mark.parametrize(
    "image", [IMAGE, f"localhost:5000/a@sha256:{'0' * 64}", f"r.io/a/b:1.2@sha256:{'f' * 64}"]
)
def test_an_image_by_digest_is_taken(image: str) -> None:
    assert check(raw_settings(image=image), Path()).image == image


def test_every_fault_is_reported_at_once_with_its_place() -> None:
    faults = _faults(
        image="x",
        trustDomain="spiffe://example.org",
        issuer="http://auth.example.com",
        identity={"source": "csi", "driver": "not a driver"},
        profiles={"small": {"cpuLimit": {"min": "2", "default": "1", "max": "3"}, "cpu": 1}},
        neverInject=["Not_a_label"],
        listeners={"webhook": {"port": 70000}},
        surplus=True,
    )
    assert set(faults) >= {
        "image",
        "trustDomain",
        "issuer",
        "identity.driver",
        "profiles.small.cpuLimit",
        "profiles.small.cpu",
        "listeners.webhook.port",
        "surplus",
    }
    assert faults["surplus"] == "is not a member we know"


def test_profiles_need_one_named_default() -> None:
    assert "default" in _faults(profiles={"small": {}})["the file"]


@pytest.mark.parametrize(
    "url", ["http://a.svc", "https://", "https://a/", "https://a/b", "https://u@a", "a", ""]
)
def test_the_authserver_is_reached_by_https_only(url: str) -> None:
    section = raw_settings()["authserver"] | {"url": url}
    assert "authserver.url" in _faults(authserver=section)


def test_a_default_request_above_the_default_limit_is_refused() -> None:
    request = {"min": "1m", "default": "400m", "max": "500m"}
    limit = {"min": "1m", "default": "200m", "max": "500m"}
    profile = {"cpuRequest": request, "cpuLimit": limit}
    assert "profiles.default" in _faults(profiles={"default": profile})
    storage = {"ephemeralStorageRequest": "2Gi", "ephemeralStorageLimit": "1Gi"}
    assert "profiles.default" in _faults(profiles={"default": storage})


@pytest.mark.parametrize(
    "neighbours",
    [
        *[
            {"environment": [prefix]}
            for prefix in ("PYTHON", "PY", "LD_", "SSL_CERT", "TOKENWARD_")
        ],
        *[{"environment": [prefix]} for prefix in ("", "azure_", "A", "AZURE_*")],
        *[{"mounts": [path]} for path in ("/etc/ssl", "/usr/lib", "/var/run", "/var/run/secrets")],
        *[{"mounts": [path]} for path in ("/var/run/tokenward/x", "/run/../etc", "run/x", "/")],
    ],
)
def test_neighbours_that_could_steer_the_sidecar_are_refused(neighbours: dict[str, Any]) -> None:
    assert any(path.startswith("neighbours") for path in _faults(neighbours=neighbours))


def test_neighbours_are_taken_as_beginnings_and_folders() -> None:
    named = {"environment": ["AZURE_", "TZ"], "mounts": ["/var/run/secrets/azure"]}
    taken = check(raw_settings(neighbours=named), Path()).neighbours
    assert (taken.environment, taken.mounts) == (("AZURE_", "TZ"), ("/var/run/secrets/azure",))


def _ca_fault(folder: Path, content: bytes) -> str:
    (folder / "ca.pem").write_bytes(content)
    section = {"url": "https://a.svc:8443", "caFile": "ca.pem"}
    with pytest.raises(ConfigurationError) as bad:
        check(raw_settings(authserver=section), folder)
    (fault,) = bad.value.faults
    assert fault.path == "authserver.caFile"
    return fault.problem


def test_a_ca_file_that_holds_a_private_key_never_becomes_an_annotation(tmp_path: Path) -> None:
    authority = Authority()
    authority.issue(tmp_path)
    key = (tmp_path / "tls.key").read_bytes()
    assert "private key" in _ca_fault(tmp_path, authority.pem.encode() + key)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"hello",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ],
)  # fmt: skip
def test_a_ca_file_without_a_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    assert _ca_fault(tmp_path, content)


def test_a_ca_file_too_large_for_an_annotation_is_refused(tmp_path: Path) -> None:
    assert "bytes" in _ca_fault(tmp_path, Authority().pem.encode() * 200)


def _write(folder: Path, **changes: Any) -> Path:
    (folder / "ca.pem").write_text(_CA.pem, "ascii")
    section = {"url": "https://a.svc:8443", "caFile": "ca.pem"}
    file = folder / "webhook.yaml"
    file.write_text(yaml.safe_dump(raw_settings(authserver=section) | changes), "utf-8")
    return file


_CA = Authority()


def test_a_file_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    found: Settings = load(_write(tmp_path))
    assert found.authserver.ca_file.pem == _CA.pem


@pytest.mark.parametrize("content", ["", "[]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_one_fault(tmp_path: Path, content: str) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(content, "utf-8")
    with pytest.raises(ConfigurationError):
        load(file)


def test_a_changed_file_takes_over_and_a_faulty_one_does_not(tmp_path: Path) -> None:
    reloads: list[bool] = []
    configuration = Configuration(_write(tmp_path), on_reload=reloads.append)
    assert not configuration.poll()
    _write(tmp_path, issuer="https://second.example.com")
    assert configuration.poll()
    assert configuration.current().issuer == "https://second.example.com"
    _write(tmp_path, issuer="nonsense")
    assert not configuration.poll()
    assert not configuration.poll()
    assert configuration.current().issuer == "https://second.example.com"
    _write(tmp_path, issuer="https://third.example.com")
    assert configuration.poll()
    assert reloads == [True, False, True]


def test_a_configuration_whose_ca_file_comes_later_takes_over_then(tmp_path: Path) -> None:
    reloads: list[bool] = []
    configuration = Configuration(_write(tmp_path), on_reload=reloads.append)
    section = {"url": "https://b.svc:8443", "caFile": "later.pem"}
    _write(tmp_path, authserver=section)
    assert not configuration.poll()
    (tmp_path / "later.pem").write_text(_CA.pem, "ascii")
    assert configuration.poll()
    assert reloads == [False, True]


def test_a_changed_ca_is_a_changed_configuration(tmp_path: Path) -> None:
    configuration = Configuration(_write(tmp_path))
    before = configuration.current().config_hashes["default"]
    (tmp_path / "ca.pem").write_text(_CA.pem + Authority().pem, "ascii")
    assert configuration.poll()
    assert configuration.current().config_hashes["default"] != before


def test_a_folder_swapped_by_its_link_is_seen(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        _write(tmp_path / version, issuer=f"https://{version}.example.com")
    link = tmp_path / "data"
    link.symlink_to("one")
    configuration = Configuration(link / "webhook.yaml")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    assert configuration.poll()
    assert configuration.current().issuer == "https://two.example.com"


def test_settings_that_fail_the_self_test_never_take_over(tmp_path: Path) -> None:
    def fault(found: Settings) -> str | None:
        return "self-test: broken" if "second" in found.issuer else None

    configuration = Configuration(_write(tmp_path), fault=fault)
    _write(tmp_path, issuer="https://second.example.com")
    assert not configuration.poll()
    assert configuration.current().issuer == "https://auth.example.com"
    with pytest.raises(ConfigurationError):
        Configuration(tmp_path / "webhook.yaml", fault=fault)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"neverInject": ["default", "tokenward-system"]},
        {"identity": {"source": "podCertificate"}},
        {"identity": {"source": "csi", "driver": "x.io", "attributes": {"a": "{spiffeId}"}}},
        {"profiles": {"default": {"runAsUser": None}, "other": {"scopes": ["a", "b"]}}},
    ],
)
def test_every_kind_of_configuration_passes_the_self_test(changes: dict[str, Any]) -> None:
    assert readiness_check.fault(check(raw_settings(**changes), Path())) is None


def test_the_self_test_finds_a_patch_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.evaluate.patch", lambda *_: b"")
    assert "self-test" in (readiness_check.fault(check(raw_settings(), Path())) or "")


_SERVER = {"namespace": "mcp-servers", "name": "notes", "resource": "https://notes.example.com/mcp"}


@pytest.mark.parametrize(
    "servers",
    [
        [],
        [_SERVER],
        [{**_SERVER, "namespace": "closed"}],
        [{**_SERVER, "namespace": "closed"}, _SERVER],
    ],
)
def test_a_list_of_servers_passes_the_self_test(servers: list[dict[str, str]]) -> None:
    raw = raw_settings(servers=servers, neverInject=["tokenward-system", "closed"])
    assert readiness_check.fault(check(raw, Path())) is None


def test_the_self_test_of_a_listed_server_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness_check, "CONTAINER", "another")
    told = readiness_check.fault(check(raw_settings(servers=[_SERVER]), Path()))
    assert told == "self-test: the patch does not add the sidecar"


def test_a_member_written_twice_is_a_fault(tmp_path: Path) -> None:
    """PyYAML lets the last one win, and with it another trust domain."""
    file = _write(tmp_path)
    file.write_text(file.read_text() + "trustDomain: two.example\n")
    with pytest.raises(ConfigurationError) as bad:
        load(file)
    (fault,) = bad.value.faults
    assert fault.path == str(file)
    assert fault.problem.endswith("names a member a second time")


def test_the_source_of_an_identity_is_no_part_of_a_path() -> None:
    faults = _faults(identity={"source": "secret", "secret": 1}, authserver={"secret": 1})
    assert {"identity.secret", "authserver.secret"} <= faults.keys()
