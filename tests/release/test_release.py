"""What a release holds: packages that start, SBOMs of the lock, sums that verify."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from chassis.version import VERSION
from release.__main__ import TARGETS
from release.checksums import UnfitSigningKey, sign, write_checksums
from release.install_manifests import OVERLAYS, NoPlaceholder, pinned, write_manifests
from release.oci import PROJECT, Image, TooLarge, check_size
from release.packages import build_packages
from release.sbom import write_sbom
from tests.support.pages import tables_of

_PACKAGES = ("webhook", "sidecar", "authserver", "controller", "chassis", "tokenward", "demo")
_DIGESTS = {
    "webhook": f"registry.example.com/tokenward/webhook@sha256:{'1' * 64}",
    "sidecar": f"registry.example.com/tokenward/sidecar@sha256:{'2' * 64}",
    "authserver": f"registry.example.com/tokenward/authserver@sha256:{'3' * 64}",
    "controller": f"registry.example.com/tokenward/controller@sha256:{'4' * 64}",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build_packages(tmp_path_factory.mktemp("packages"))


@pytest.mark.timeout(240)
def test_wheel_and_source_archive_carry_the_version_and_are_small(packages: list[Path]) -> None:
    assert [path.name for path in packages] == [
        f"tokenward-{VERSION}-py3-none-any.whl",
        f"tokenward-{VERSION}.tar.gz",
    ]
    assert packages[0].stat().st_size < 1_000_000


@pytest.mark.timeout(240)
def test_the_wheel_holds_every_file_that_its_processes_open(
    packages: list[Path], tmp_path: Path
) -> None:
    """Installed alone into an empty environment; the packages it needs are lent from ours."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run([*install, "--quiet", str(packages[0])], check=True)
    check_command_line_alone(tmp_path / "venv/bin/tokenward")
    [site] = (tmp_path / "venv/lib").glob("python*/site-packages")
    ours = Path(sys.executable).parents[1].glob("lib/python*/site-packages")
    (site / "lent.pth").write_text("".join(f"{path}\n" for path in ours))
    tracked = subprocess.run(
        ["git", "ls-files", "--", *_PACKAGES],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    missing = [path for path in tracked if not (site / path).exists()]
    assert missing == []
    for process in ("webhook", "authserver"):
        shown = subprocess.run(
            [python, "-m", process, "--help"],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert "--config" in shown.stdout
    command = str(tmp_path / "venv/bin/tokenward")
    dev = [command, "dev", "--", str(python), "-c", "raise SystemExit(3)"]
    ran = subprocess.run(dev, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, "the command ended with code 3" in ran.stdout) == (3, True), ran


def check_command_line_alone(command: Path) -> None:
    """`pip install tokenward` without extras: the help, and what needs no other package."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)

    shown = run("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "who-can" in shown.stdout
    line = {"time": "t", "process": "sidecar", "source": "local_api", "event": "refused"}
    log = command.parent / "log"
    log.write_text(json.dumps(line | {"request_id": "req-1", "error": "rate_limited"}))
    explained = run("explain", "req-1", str(log))
    assert (explained.returncode, "rate_limited" in explained.stdout) == (0, True)
    doctor = run("doctor")
    assert doctor.returncode == 1
    assert "install tokenward[authserver,webhook]" in doctor.stderr
    assert len(doctor.stderr.splitlines()) == 1


def test_the_sbom_of_an_image_lists_what_its_extra_locks_and_nothing_else(tmp_path: Path) -> None:
    bom = json.loads(write_sbom("sidecar", tmp_path).read_bytes())
    assert bom["bomFormat"] == "CycloneDX"
    assert {one["name"] for one in bom["components"]} == {"httptools"}
    for one in bom["components"]:
        assert one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"


def test_sums_verify_and_a_changed_file_does_not(tmp_path: Path) -> None:
    file = tmp_path / "one.tar"
    file.write_bytes(b"first")
    write_checksums([file], tmp_path)
    check = ["sha256sum", "--check", "--status", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    file.write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode != 0


def test_openssl_verifies_the_signature(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    sums = write_checksums([], tmp_path)
    signature = sign(sums, _pem(key))
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    verify = [
        *("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(public)),
        *("-in", str(sums), "-sigfile", str(signature)),
    ]
    sums.write_text("a line\n")
    assert subprocess.run(verify, check=False, capture_output=True).returncode != 0
    sign(sums, _pem(key))
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("pem", ["no key", "wrong kind"])
def test_an_unfit_signing_key_is_refused_and_not_shown(pem: str, tmp_path: Path) -> None:
    if pem == "wrong kind":
        pem = _pem(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UnfitSigningKey) as refused:
        sign(write_checksums([], tmp_path), pem)
    assert pem not in str(refused.value)
    assert not (tmp_path / "SHA256SUMS.sig").exists()


# The controller makes the authserver's Deployment, so its image is a line of a configuration.
_LINES = {
    "production": {"image": ["webhook", "sidecar", "authserver"]},
    "quickstart": {
        "image": ["webhook", "sidecar", "controller"],
        "authserverImage": ["authserver"],
    },
}


def test_every_image_of_an_install_manifest_is_pinned(tmp_path: Path) -> None:
    written = write_manifests(_DIGESTS, tmp_path)
    assert [path.name for path in written] == [f"install-{one}.yaml" for one in OVERLAYS]
    for path, overlay in zip(written, OVERLAYS, strict=True):
        text = path.read_text("utf-8")
        named = [
            line.strip()
            for line in text.splitlines()
            if re.match(r"\s+(- )?(image|authserverImage): ", line)
        ]
        for member, names in _LINES[overlay].items():
            for name in names:
                assert f"{member}: {_DIGESTS[name]}" in named
        assert all("@sha256:" in line for line in named), named
        assert "sha256:0000" not in text
        assert "kind: Secret\n" not in text
    assert sorted(tmp_path.iterdir()) == written


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_that_does_not_name_the_sidecar_once_is_a_fault(overlay: str) -> None:
    line = f"    image: registry.example.com/tokenward/sidecar@sha256:{'0' * 64}\n"
    authserver = "    authserverImage: tokenward/authserver:dev\n"
    assert "sha256:0000" not in pinned(line + authserver, overlay, _DIGESTS)
    for text in (authserver, authserver + line + line):
        with pytest.raises(NoPlaceholder):
            pinned(text, overlay, _DIGESTS)


def test_every_process_has_an_image_in_a_release() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    libraries = extras["project"]["optional-dependencies"].keys() - {"demo", "dev", "release"}
    assert TARGETS.keys() == libraries == _DIGESTS.keys()


def test_the_budgets_are_those_of_the_page() -> None:
    (rows,) = (
        rows
        for _, rows in tables_of(PROJECT / "docs/how-to/make-a-release.md")
        if "at most" in rows[0]
    )
    stated = {row[0].strip("`").partition("-")[0]: row[1] for row in rows[1:]}
    assert stated.pop("the wheel") == "1 MB"
    assert stated == {name: f"{most // 10**6} MB" for name, most in TARGETS.items()}
    assert (TARGETS["sidecar"], TARGETS["authserver"]) == (60_000_000, 110_000_000)


def test_the_packages_for_authors_have_the_same_version() -> None:
    for folder in ("python/pyproject.toml", "express/package.json"):
        path = PROJECT / "integrations" / folder
        text = path.read_text("utf-8")
        said = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)["project"]
        assert said["version"] == VERSION, folder


def test_an_image_over_its_budget_is_no_release(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(b"x" * 1000)
    archive = tmp_path / "sidecar.tar"
    with tarfile.open(archive, "w") as opened:
        opened.add(layer)
    image = Image("registry.example.com/tokenward/sidecar:1", "sha256:1", archive)
    check_size(image, 1000)
    with pytest.raises(TooLarge, match="sidecar:1"):
        check_size(image, 999)


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
