"""The configuration file, and how the process starts, refuses to start, and stops."""

import asyncio
import json
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from authserver.config.loader import load
from chassis.process import ConfigurationError
from demo.forms import parse_forms
from demo.pki import CertificateAuthority
from tests.support.deployment import CALLBACK, NOTES, Pkce, configuration_of, write_material
from tests.support.svid_certificates import AUTHORITY, rsa_key, self_signed

ISSUER = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and certificates, made once."""
    folder = tmp_path_factory.mktemp("material")
    server_ca, workload_ca = (CertificateAuthority.create(n) for n in ("servers", "workloads"))
    write_material(folder, server_ca, workload_ca)
    return folder


@pytest.fixture
def folder(material: Path, tmp_path: Path) -> Path:
    """A folder of its own with the same material."""
    for file in material.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def written(folder: Path, changes: dict[str, Any]) -> Path:
    """A configuration file; a key such as `a.0.b` changes one member, None removes it."""
    configuration: Any = configuration_of(folder, ISSUER, "https://accounts.example.com")
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        at = configuration
        for part in parents:
            at = at[part]
        if value is None:
            del at[last]
        else:
            at[last] = value
    file = folder / "authserver.yaml"
    file.write_text(yaml.safe_dump(configuration))
    return file


def faults_of(file: Path) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as bad:
        load(file)
    assert len({fault.path for fault in bad.value.faults}) == len(bad.value.faults)
    return {fault.path: fault.problem for fault in bad.value.faults}


# The file.


def test_a_complete_configuration_is_read(folder: Path) -> None:
    settings = load(written(folder, {}))
    assert settings.issuer == ISSUER
    assert settings.lifetimes.access_token == 15 * 60
    assert settings.lifetimes.authorization_code == 60
    assert settings.lifetimes.refresh_token_idle == 30 * 86400
    assert settings.lifetimes.refresh_token_absolute == 90 * 86400
    assert settings.upstreams[0].client_secret() == "upstream secret canary"


@pytest.mark.parametrize(
    ("changes", "path", "problem"),
    [
        ({"issuer": None}, "issuer", "Field required"),
        ({"issuer": "http://auth.example.com"}, "issuer", "must start with https://"),
        ({"issuer": "https://auth.example.com/"}, "issuer", "no trailing slash"),
        ({"issuer": "https://auth.example.com?a=b"}, "issuer", "no query"),
        ({"issuer": "https://user@auth.example.com"}, "issuer", "user information"),
        ({"issuer": "https://auth.example.com#a"}, "issuer", "fragment"),
        ({"issuer": "https://[auth"}, "issuer", ""),
        ({"issuer": "https://auth.example.com:99999"}, "issuer", "must be a plain URL"),
        ({"issuer": "https://"}, "issuer", "must start with https://"),
        ({"issuer": "javascript:alert(1)"}, "issuer", "must start with https://"),
        ({"issuer": 5}, "issuer", "valid string"),
        ({"trustDomain": "spiffe://example.org"}, "trustDomain", "without spiffe://"),
        ({"trustDomain": "Example.org"}, "trustDomain", "must be a trust domain"),
        ({"listeners.public.host": "0.0.0.0"}, "listeners.public", "plain http is for loopback"),
        ({"listeners.public.port": 65536}, "listeners.public.port", "65535"),
        (
            {"listeners.public.tls": {"certFile": "tls.crt"}},
            "listeners.public.tls.keyFile",
            "Field required",
        ),
        ({"listeners.internal.clientCAFile": None}, "listeners.internal.clientCAFile", "required"),
        ({"listeners.internal.certFile": "gone"}, "listeners.internal.certFile", "no such file"),
        ({"listeners.internal.keyFile": "."}, "listeners.internal.keyFile", "is a directory"),
        ({"storage.url": "mysql://db"}, "storage.url", "sqlite:///absolute/path"),
        ({"storage.url": "sqlite://host/db"}, "storage.url", "sqlite:///absolute/path"),
        ({"storage.url": "sqlite:///db?mode=memory"}, "storage.url", "sqlite:///absolute/path"),
        ({"encryptionKeys": None}, "encryptionKeys", "Field required"),
        ({"encryptionKeys": []}, "encryptionKeys", "at least 1"),
        ({"encryptionKeys.0.file": "gone"}, "encryptionKeys[0].file", "no such file"),
        ({"encryptionKeys.0.file": "tls.crt"}, "encryptionKeys[0].file", "32 random bytes"),
        ({"encryptionKeys.0.file": "short"}, "encryptionKeys[0].file", "32 random bytes"),
        ({"encryptionKeys.0.file": "binary"}, "encryptionKeys[0].file", "32 random bytes"),
        ({"encryptionKeys.0.file": "empty"}, "encryptionKeys[0].file", "is empty"),
        ({"encryptionKeys.0.id": "k 1"}, "encryptionKeys[0].id", "must be 1 to 64"),
        (
            {"encryptionKeys": [{"id": "k1", "file": "k1"}] * 2},
            "encryptionKeys[1].id",
            "stands here twice",
        ),
        ({"signingKeys": []}, "signingKeys", "at least 1"),
        ({"signingKeys.0.file": "gone"}, "signingKeys[0].file", "no such file"),
        ({"signingKeys.0.file": "k1"}, "signingKeys[0]", "not an unencrypted private key"),
        ({"signingKeys.0.algorithm": "RS256"}, "signingKeys[0]", "not a key for RS256"),
        ({"signingKeys.0.algorithm": "none"}, "signingKeys[0].algorithm", "'ES256'"),
        ({"signingKeys.0.algorithm": "HS256"}, "signingKeys[0].algorithm", "'ES256'"),
        (
            {"signingKeys": [{"file": "signing.pem"}] * 2},
            "signingKeys",
            "the same key stands here twice",
        ),
        (
            {"upstreams.0.name": "ACME", "resources": []},
            "upstreams[0].name",
            "lower-case letters",
        ),
        (
            {"upstreams.0.name": "a/b", "resources": []},
            "upstreams[0].name",
            "lower-case letters",
        ),
        ({"upstreams.0.type": "saml"}, "upstreams[0]", "'oidc', 'oauth2'"),
        ({"upstreams.0.issuer": "http://accounts.example.com"}, "upstreams[0].issuer", "https://"),
        ({"upstreams.0.scopes": ["email"]}, "upstreams[0].scopes", "must contain openid"),
        ({"upstreams.0.scopes": ["openid", "a b"]}, "upstreams[0].scopes[1]", "a scope token"),
        (
            {"upstreams.0.clientSecretFile": "gone"},
            "upstreams[0].clientSecretFile",
            "no such file",
        ),
        (
            {"upstreams.0.clientSecretFile": "binary"},
            "upstreams[0].clientSecretFile",
            "must be text",
        ),
        ({"resources.0.resource": "notes"}, "resources[0].resource", "not an absolute http"),
        ({"resources.0.resource": "https://a/#b"}, "resources[0].resource", "fragment"),
        (
            {"resources.1.resource": "HTTPS://NOTES.example.com:443/mcp/"},
            "resources[1].resource",
            "the same resource as resources[0]",
        ),
        (
            {"resources.0.workload.name": "Not a label"},
            "resources[0].workload.name",
            "must be a DNS-1123 label",
        ),
        ({"resources.0.upstreams": []}, "resources[0].upstreams", "at least 1"),
        ({"resources.0.upstreams": ["acne"]}, "resources[0].upstreams[0]", "there are: acme"),
        ({"lifetimes": {"accessToken": 900}}, "lifetimes.accessToken", "15m"),
        ({"lifetimes": {"accessToken": "15"}}, "lifetimes.accessToken", "15m"),
        ({"lifetimes": {"accessToken": "25h"}}, "lifetimes.accessToken", "86400"),
        ({"lifetimes": {"authorizationCode": "11m"}}, "lifetimes.authorizationCode", "600"),
        (
            {"limits": {"registrationsPerSourcePerMinute": 0}},
            "limits.registrationsPerSourcePerMinute",
            "greater than or equal to 1",
        ),
        ({"logLevel": "trace"}, "logLevel", "'debug', 'info'"),
        ({"isuer": "typo"}, "isuer", "is not a member we know"),
        ({"listeners.public.tsl": {}}, "listeners.public.tsl", "is not a member we know"),
        ({"upstreams.0.clientSecret": "x"}, "upstreams[0].clientSecret", "is not a member we know"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_fault_is_named_with_its_place(
    folder: Path, changes: dict[str, Any], path: str, problem: str
) -> None:
    (folder / "short").write_text("c2hvcnQ=")
    (folder / "binary").write_bytes(b"\xff\xfe\x00" * 11)
    (folder / "empty").write_text("\n")
    faults = faults_of(written(folder, changes))
    assert list(faults) == [path], faults
    assert problem in faults[path]


@pytest.mark.parametrize(
    ("client", "path", "problem"),
    [
        ({"redirectUris": []}, "clients.static[0].redirectUris", "at least 1"),
        (
            {"redirectUris": ["http://portal.example.com/cb"]},
            "clients.static[0].redirectUris",
            "must be https",
        ),
        (
            {"tokenEndpointAuthMethod": "none"},
            "clients.static[0]",
            "goes with the client_secret methods",
        ),
        ({"clientSecretFile": None}, "clients.static[0]", "goes with the client_secret methods"),
        ({"clientSecretFile": "binary"}, "clients.static[0].clientSecretFile", "must be text"),
    ],
    ids=str,
)
def test_a_fault_of_a_configured_client_is_named_with_its_place(
    folder: Path, client: dict[str, Any], path: str, problem: str
) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe")
    portal = _portal() | client
    portal = {name: value for name, value in portal.items() if value is not None}
    faults = faults_of(written(folder, {"clients": {"static": [portal]}}))
    assert list(faults) == [path], faults
    assert problem in faults[path]


def test_two_configured_clients_cannot_share_an_id(folder: Path) -> None:
    file = written(folder, {"clients": {"static": [_portal(), _portal()]}})
    assert faults_of(file) == {"clients.static[1].clientId": "stands here twice"}


def test_an_upstream_that_cannot_name_its_user_cannot_come_first(folder: Path) -> None:
    github = {
        "name": "github",
        "type": "oauth2",
        "authorizationEndpoint": "https://github.example/authorize",
        "tokenEndpoint": "https://github.example/token",
        "clientId": "tokenward",
    }
    acme = yaml.safe_load(written(folder, {}).read_text())["upstreams"][0]
    changes = {"upstreams": [acme, github], "resources.0.upstreams": ["acme", "github"]}
    load(written(folder, changes))
    faults = faults_of(written(folder, changes | {"resources.0.upstreams": ["github"]}))
    assert list(faults) == ["resources[0].upstreams[0]"]
    named = github | {"userinfoEndpoint": "https://github.example/user", "subjectField": "id"}
    changes |= {"upstreams": [acme, named], "resources.0.upstreams": ["github"]}
    load(written(folder, changes))


@pytest.mark.parametrize("name", [["a"], {"a": 1}, None, 5, True])
def test_a_name_of_the_wrong_type_is_a_fault_and_no_crash(folder: Path, name: Any) -> None:
    changes: dict[str, Any] = {"upstreams.0": {"name": name, "type": "oidc"}}
    assert "upstreams[0].name" in faults_of(written(folder, changes))
    changes = {"resources.0": {"resource": name, "upstreams": [name], "workload": name}}
    assert "resources[0].resource" in faults_of(written(folder, changes))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a YAML mapping"),
        ("- a", "is not a YAML mapping"),
        ("a: [", "line 1 is not YAML"),
        ("a: !!python/object/apply:os.system [x]", "line 1 is not YAML"),
        ("issuer: a\nissuer: b", "line 2 names a member a second time"),
        ("clients: {static: [{clientId: a, clientId: b}]}", "line 1 names a member a second time"),
    ],
)
def test_a_file_that_cannot_be_read_in_one_way_only_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "authserver.yaml"
    file.write_text(text)
    (found,) = faults_of(file).values()
    assert problem in found


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "gone.yaml"
    assert faults_of(file) == {str(file): "no such file or directory"}


def _portal() -> dict[str, Any]:
    return {"clientId": "portal", "redirectUris": [CALLBACK], "clientSecretFile": "upstream-secret"}


# The process.


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines()]


async def run(*arguments: str) -> Ended:
    process = await _start(*arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "authserver",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def refused(file: Path) -> str:
    """Start with `file`; the one line that says why the process could not."""
    ended = await run("--config", str(file))
    assert ended.code == 1, ended
    (failure,) = (event for event in ended.events if event["level"] == "error")
    assert failure["event"] == "start_failed"
    assert "Traceback" not in ended.err
    return str(failure["problem"])


async def test_a_bad_configuration_lists_every_fault_at_once_and_exits_2(folder: Path) -> None:
    changes = {
        "issuer": "https://auth.example.com/",
        "isuer": "typo",
        "encryptionKeys.0.file": "gone",
        "resources.0.upstreams": ["acne"],
        "listeners.public.port": "eighty",
    }
    file = written(folder, changes)
    places = {
        "encryptionKeys[0].file",
        "issuer",
        "isuer",
        "listeners.public.port",
        "resources[0].upstreams[0]",
    }
    checked = await run("--config", str(file), "--check")
    assert checked.code == 2
    assert {line.split(": ")[0] for line in checked.err.splitlines()} == places
    report = folder / "report"
    as_json = await run(
        "--config", str(file), "--check", "--output", "json", "--report", str(report)
    )
    assert (as_json.code, as_json.err) == (2, "")
    assert as_json.out.strip() == report.read_text()
    said = json.loads(as_json.out)
    lines = [f"{one['path']}: {one['problem']}" for one in said["faults"]]
    assert (lines, said["more"]) == (checked.err.splitlines(), 0)
    started = await run("--config", str(file))
    assert started.code == 2
    assert {event["path"] for event in started.events} == places
    assert not (folder / "tokenward.db").exists()


async def test_check_says_that_a_good_configuration_is_good_and_touches_nothing(
    folder: Path,
) -> None:
    file = written(folder, {})
    before = sorted(folder.iterdir())
    checked = await run("--config", str(file), "--check")
    assert (checked.code, checked.err) == (0, "")
    assert "no faults" in checked.out
    assert sorted(folder.iterdir()) == before


async def test_without_a_configuration_the_usage_is_shown() -> None:
    ended = await run()
    assert ended.code == 2
    assert "--config" in ended.err


async def test_a_port_in_use_is_one_clear_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for listener in ("public", "internal", "ops"):
            file = written(folder, {f"listeners.{listener}.port": port})
            problem = await refused(file)
            assert problem == f"{listener} listener: port {port} on 127.0.0.1 is already in use"
    # What the failed starts left is whole: the next one serves with it.
    async with serving(written(folder, {})):
        pass


def unfit_anchor(folder: Path) -> str:
    weak = self_signed(replace(AUTHORITY, new_key=rsa_key(1024)))
    with (folder / "workloads.pem").open("ab") as bundle:
        bundle.write(weak.pem())
    return "has a weak key"


def no_certificate(folder: Path) -> str:
    (folder / "tls.crt").write_bytes((folder / "k1").read_bytes())
    return "tls.crt"


@pytest.mark.parametrize("spoil", [unfit_anchor, no_certificate])
async def test_a_certificate_or_ca_that_cannot_be_used_is_a_fault_and_leaves_no_file(
    folder: Path, spoil: Callable[[Path], str]
) -> None:
    file, problem = written(folder, {}), spoil(folder)
    checked = await run("--config", str(file), "--check")
    assert checked.code == 2
    assert problem in checked.err
    started = await run("--config", str(file))
    assert started.code == 2
    (fault,) = started.events
    assert (fault["event"], fault["path"]) == ("bad_configuration", "listeners.internal")
    assert problem in fault["problem"]
    assert not list(folder.glob("tokenward.db*"))


async def test_a_folder_that_is_not_there_is_one_clear_line(folder: Path) -> None:
    file = written(folder, {"storage.url": f"sqlite://{folder}/gone/tokenward.db"})
    assert await refused(file) == f"{folder}/gone/tokenward.db: its folder does not exist"


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(folder: Path) -> None:
    database = folder / "tokenward.db"
    database.write_bytes(b"certainly not a database\n" * 100)
    before = {file: file.read_bytes() for file in folder.glob("tokenward.db*")}
    problem = await refused(written(folder, {}))
    assert problem == f"{database}: file is not a database"
    assert {file: file.read_bytes() for file in folder.glob("tokenward.db*")} == before


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (["CREATE TABLE invoices (n)"], "holds another program's tables"),
        (
            ["CREATE TABLE schema_version (version BIGINT NOT NULL)",
             "INSERT INTO schema_version VALUES (9999)"],
            "schema version 9999",
        ),
    ],
    ids=["foreign", "newer"],
)  # fmt: skip
async def test_a_database_of_another_program_or_a_newer_one_is_refused_and_left_as_it_is(
    folder: Path, statements: list[str], problem: str
) -> None:
    database = folder / "tokenward.db"
    connection = sqlite3.connect(database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    before = {file: file.read_bytes() for file in folder.glob("tokenward.db*")}
    found = await refused(written(folder, {}))
    assert found.startswith(f"{database}: ")
    assert problem in found
    assert {file: file.read_bytes() for file in folder.glob("tokenward.db*")} == before


async def test_a_database_nobody_may_read_is_one_clear_line(folder: Path) -> None:
    (folder / "tokenward.db").mkdir()
    problem = await refused(written(folder, {}))
    assert problem == f"{folder}/tokenward.db: unable to open database file"


async def test_the_database_is_for_its_owner_only(folder: Path) -> None:
    async with serving(written(folder, {})):
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.glob("tokenward.db*")}
        assert set(modes.values()) == {0o600}, modes


async def test_sigterm_lets_requests_finish_then_exits_0(folder: Path) -> None:
    async with slow_upstream() as upstream:
        file = written(folder, {"upstreams.0.issuer": upstream.issuer})
        async with serving(file) as server, aiohttp.ClientSession(server.public) as http:
            consent = asyncio.create_task(_consented(http))
            await upstream.asked.wait()
            server.process.send_signal(signal.SIGTERM)
            await server.event("draining")
            while await _accepts(server.ports["public"]):
                pass  # the listener closes a moment after it was said
            upstream.may_answer.set()
            assert "temporarily_unavailable" in await consent
            await server.event("stopped")
            assert await server.process.wait() == 0


@dataclass
class SlowUpstream:
    issuer: str
    asked: asyncio.Event
    may_answer: asyncio.Event


@asynccontextmanager
async def slow_upstream() -> AsyncIterator[SlowUpstream]:
    """Accepts a request, and hangs up when it may."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await may_answer.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield SlowUpstream(f"http://127.0.0.1:{port}", asked, may_answer)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def _consented(http: aiohttp.ClientSession) -> str:
    """Register, ask and allow; where the user is sent in the end."""
    metadata = {"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    async with http.post("/oauth/register", json=metadata) as registered:
        client_id = (await registered.json())["client_id"]
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "resource": NOTES,
        "code_challenge": Pkce().challenge,
        "code_challenge_method": "S256",
    }
    async with http.get("/oauth/authorize", params=query) as page:
        (form,) = parse_forms(await page.text())
        cookie = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    fields = form.filled({}, ("decision", "allow"))
    async with http.post(
        "/oauth/consent", data=fields, headers=cookie, allow_redirects=False
    ) as answer:
        return answer.headers["Location"]


@dataclass
class Serving:
    process: asyncio.subprocess.Process
    ports: dict[str, int]

    @property
    def public(self) -> str:
        return f"http://127.0.0.1:{self.ports['public']}"

    async def event(self, name: str) -> dict[str, Any]:
        """Read the log up to an event."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            found: dict[str, Any] = json.loads(line)
            if found["event"] == name:
                return found
        raise AssertionError(f"the process ended before {name}")


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Serving]:
    """A running process; ended by SIGTERM if it still runs, and then with exit code 0."""
    process = await _start("--config", str(file))
    server = Serving(process, {})
    try:
        for _ in range(3):
            listening = await server.event("listening")
            server.ports[listening["listener"]] = listening["port"]
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        _, err = await process.communicate()
        assert process.returncode == 0, err
