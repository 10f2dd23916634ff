"""Misconfigurations, each put into a running deployment, and what `doctor` has to say of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.pki import write_credential
from tests.support.database_file import sql
from tests.support.deployment import Deployment

Seed = Callable[[Deployment], Awaitable[None]]


@dataclass(frozen=True)
class Misconfiguration:
    """`check` is the finding's code, `remedy` a word of what must be advised."""

    name: str
    check: str
    remedy: str
    seed: Seed


def configured(**changes: Any) -> Seed:
    """Members of the configuration file, replaced."""

    async def seed(world: Deployment) -> None:
        edit(world, lambda raw: raw.update(changes))

    return seed


def edited(change: Callable[[dict[str, Any]], object]) -> Seed:
    async def seed(world: Deployment) -> None:
        edit(world, change)

    return seed


def edit(world: Deployment, change: Callable[[dict[str, Any]], object]) -> None:
    file = world.folder / "authserver.yaml"
    raw = yaml.safe_load(file.read_text())
    change(raw)
    file.write_text(yaml.safe_dump(raw))


def stored(*statements: str) -> Seed:
    """Rows of the database, changed."""

    async def seed(world: Deployment) -> None:
        for statement in statements:
            await sql(world.folder, statement)

    return seed


def file(name: str, change: Callable[[Path], object]) -> Seed:
    async def seed(world: Deployment) -> None:
        change(world.folder / name)

    return seed


def certificate(**how: Any) -> Seed:
    """Another certificate of the internal listener."""

    async def seed(world: Deployment) -> None:
        write_credential(world.folder, world.server_ca.issue_server(**how))

    return seed


def upstream(**changes: Any) -> Seed:
    return edited(lambda raw: raw["upstreams"][0].update(changes))


def another_signing_key(world: Deployment) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (world.folder / "second.pem").write_bytes(pem)
    (world.folder / "second.pem").chmod(0o600)


async def new_first_key(world: Deployment) -> None:
    another_signing_key(world)
    edit(world, lambda raw: raw["signingKeys"].insert(0, {"file": "second.pem"}))
    edit(world, lambda raw: raw["signingKeys"][1].update(retiredAt="2020-01-01T00:00:00Z"))


async def forgotten_second_key(world: Deployment) -> None:
    another_signing_key(world)
    edit(world, lambda raw: raw["signingKeys"].append({"file": "second.pem"}))


async def swapped_encryption_key(world: Deployment) -> None:
    fingerprint = b"x" * 32
    await sql(world.folder, "DELETE FROM key_checks")
    await sql(world.folder, "INSERT INTO key_checks VALUES ('k1', ?)", fingerprint)


async def old_certificate(world: Deployment) -> None:
    """It was for a hundred days, and has five left."""
    issued = datetime.fromtimestamp(world.clock(), UTC) - timedelta(days=95)
    await certificate(lifetime=timedelta(days=100), now=issued)(world)


async def key_of_another_certificate(world: Deployment) -> None:
    before = (world.folder / "tls.crt").read_bytes()
    write_credential(world.folder, world.server_ca.issue_server())
    (world.folder / "tls.crt").write_bytes(before)


async def stranger_at_the_issuer(world: Deployment) -> None:
    """The public name leads to the upstream, which is some other program."""
    edit(world, lambda raw: raw.update(issuer=world.upstream.issuer))


SEEDS: tuple[Misconfiguration, ...] = tuple(
    Misconfiguration(*one)
    for one in (
        ("unknown member", "configuration", "configuration.md", configured(issuerr="x")),
        ("missing secret file", "configuration", "correct", upstream(clientSecretFile="none")),
        ("unknown upstream", "configuration", "correct",
         edited(lambda raw: raw["resources"][0].update(upstreams=["acne"]))),
        ("damaged encryption key", "configuration", "correct",
         file("k1", lambda path: path.write_text("c2hvcnQ="))),
        ("damaged signing key", "configuration", "correct",
         file("signing.pem", lambda path: path.write_text("no key"))),
        ("no yaml", "configuration", "correct",
         file("authserver.yaml", lambda path: path.write_text("a: [b"))),
        ("workload not allowed", "workload_not_allowed", "allowedWorkloads",
         configured(allowedWorkloads={"namespaces": ["elsewhere"], "names": ["*"]})),
        ("workload denied", "workload_denied", "deniedCertificates",
         configured(deniedCertificates={
             "spiffeIds": ["spiffe://example.org/ns/mcp-servers/mcpserver/tasks"]})),
        ("unused upstream", "upstream_unused", "resource",
         edited(lambda raw: raw["upstreams"].append(raw["upstreams"][0] | {"name": "other"}))),
        ("former registration over", "former_registration_over", "until",
         upstream(former=[{"clientId": "old", "until": "2020-01-01T00:00:00Z"}])),
        ("empty client secret", "configuration", "correct",
         file("upstream-secret", lambda path: path.write_text("\n"))),
        ("no way for clients", "no_way_for_clients", "registration",
         configured(clients={"registration": {"enabled": False},
                             "metadataDocuments": {"enabled": False}})),
        ("one port twice", "port_twice", "port",
         edited(lambda raw: [one.update(port=8443) for one in raw["listeners"].values()])),
        ("proxies not named", "no_trusted_proxies", "proxy",
         edited(lambda raw: raw["listeners"]["public"].update(behindTLSProxy=True))),
        ("idle longer than absolute", "idle_longer_than_absolute", "refreshTokenAbsolute",
         configured(lifetimes={"refreshTokenIdle": "2d", "refreshTokenAbsolute": "1d"})),
        ("first key announced", "configuration", "correct",
         edited(lambda raw: raw["signingKeys"][0].update(announced=True))),
        ("first key retired", "configuration", "correct",
         edited(lambda raw: raw["signingKeys"][0].update(retiredAt="2020-01-01T00:00:00Z"))),
        ("second key forgotten", "second_key_neither", "retiredAt", forgotten_second_key),
        ("encryption key for all", "secret_readable_by_all", "chmod",
         file("k1", lambda path: path.chmod(0o644))),
        ("signing key for all", "secret_readable_by_all", "chmod",
         file("signing.pem", lambda path: path.chmod(0o604))),
        ("database for all", "secret_readable_by_all", "chmod",
         file("tokenward.db", lambda path: path.chmod(0o644))),
        ("key of another certificate", "listener_credential", "anew", key_of_another_certificate),
        ("certificate expired", "certificate_expired", "renewed",
         certificate(lifetime=timedelta(seconds=-60))),
        ("certificate ends soon", "certificate_ends_soon", "renewed",
         old_certificate),
        ("certificate without a name", "internal_certificate_without_name", "AUTHSERVER_URL",
         certificate(dns=())),
        ("client CAs empty", "listener_credential", "CA",
         file("workloads.pem", lambda path: path.write_text("nothing\n"))),
        ("newer database", "storage", "version",
         stored("UPDATE schema_version SET version = 999")),
        ("older database", "storage", "migrated", stored("UPDATE schema_version SET version = 5")),
        ("no database", "storage", "reached",
         edited(lambda raw: raw.update(storage={"url": "postgresql://u@127.0.0.1:9/d"}))),
        ("encryption key swapped", "encryption_key_swapped", "id", swapped_encryption_key),
        ("encryption key missing", "encryption_key_missing", "rewrap",
         stored("UPDATE connections SET sealed_under = 'k0'")),
        ("server gone", "sessions_of_no_server", "resource",
         edited(lambda raw: raw["resources"].pop(0))),
        ("client id replaced", "registration_not_configured", "former",
         upstream(clientId="another")),
        ("connections dead", "connections_dead", "audit trail",
         stored("UPDATE connections SET dead = 1")),
        ("no authserver runs", "no_authserver_runs", "start one",
         stored("INSERT INTO leases VALUES ('housekeeping', 'h', 1000)")),
        ("events wait", "operator_events_wait", "log",
         stored("INSERT INTO operator_events VALUES ('e', '{}', 1000)")),
        ("clock behind", "clock_behind_storage", "clock",
         stored("UPDATE sessions SET signed_in_at = signed_in_at + 86400")),
        ("upstream elsewhere", "upstream_unusable", "network policy",
         upstream(issuer="http://127.0.0.1:9")),
        ("upstream with another issuer", "upstream_unusable", "exactly",
         edited(lambda raw: raw["upstreams"][0].update(
             issuer=raw["upstreams"][0]["issuer"].replace("127.0.0.1", "localhost")))),
        ("issuer unreachable", "issuer_unreachable", "DNS",
         configured(issuer="http://127.0.0.1:9")),
        ("issuer is somebody else", "issuer_is_somebody_else", "ingress", stranger_at_the_issuer),
        ("new signing key not everywhere", "signing_key_not_served", "replicas", new_first_key),
    )
)  # fmt: skip

# Ten of them in pairs: neither hides the other.
PAIRS: tuple[tuple[str, str], ...] = (
    ("workload not allowed", "unused upstream"),
    ("idle longer than absolute", "no way for clients"),
    ("encryption key for all", "certificate without a name"),
    ("connections dead", "clock behind"),
    ("issuer unreachable", "upstream elsewhere"),
)
