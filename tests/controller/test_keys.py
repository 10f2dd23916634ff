"""The authserver's keys: made once, never replaced silently, rotated without a refused token."""

from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any

import pytest

from controller.issuing import authority, rotation
from controller.issuing.authority import new_key
from controller.reconcile import keys
from controller.reconcile.keys import KeyPlan
from tests.controller.samples import MAKERS, NOW, auth_server

KEY = b64encode(bytes(32)) + b"\n"


def secret(name: str, **data: bytes) -> dict[str, Any]:
    named = {key.replace("_", "."): value for key, value in data.items()}
    return {"metadata": {"name": name}, "data": rotation.encoded(named)}


def planned(
    secrets: dict[str, Any] | None = None,
    *,
    stored: bool = False,
    status: dict[str, Any] | None = None,
    now: datetime = NOW,
    **spec: Any,
) -> KeyPlan:
    server = auth_server(keys={"signingRotation": "2160h", **spec})
    server.raw["status"] = status or {}  # type: ignore[index]
    return keys.plan(server, secrets or {}, storage_exists=stored, now=now, makers=MAKERS)


def test_keys_are_made_where_there_is_nothing_yet() -> None:
    plan = planned()
    assert [one["metadata"]["name"] for one in plan.create] == ["main-encryption", "main-signing"]
    assert all("ownerReferences" not in one["metadata"] for one in plan.create)
    assert all(
        "kubectl delete secret" in str(one["metadata"]["annotations"]) for one in plan.create
    )
    assert plan.usable
    data = rotation.decoded(plan.create[0])
    assert data == {"k1": b64encode(bytes(range(32))) + b"\n"}


@pytest.mark.parametrize(
    "told",
    [{"stored": True}, {"status": {"keysMade": True}}, {"encryptionSecretRef": {"name": "x"}}],
)
def test_encryption_keys_that_are_gone_are_never_made_anew(told: dict[str, Any]) -> None:
    plan = planned(**told)
    assert (plan.condition.status, plan.condition.reason) == ("False", "KeyMissing")
    assert plan.create == ()
    assert not plan.usable
    assert "restore it from a backup" in plan.condition.message or "make it" in (
        plan.condition.message
    )


@pytest.mark.parametrize(
    "data",
    [{}, {"k1": b""}, {"k1": b"short"}, {"k1": KEY, "k2": b64encode(bytes(31))}, {"k1": b"\xff"}],
)
def test_an_encryption_key_of_another_shape_is_a_condition(data: dict[str, bytes]) -> None:
    plan = planned({"main-encryption": secret("main-encryption", **data)})
    assert plan.condition.reason == "KeyInvalid"
    assert plan.create == ()


def test_the_last_encryption_key_seals_and_all_open() -> None:
    found = secret("mine", k1=KEY, k2=KEY, k3=KEY)
    plan = planned({"mine": found}, encryptionSecretRef={"name": "mine"})
    assert plan.encryption.sealing_first == ("k3", "k2", "k1")


def test_a_missing_signing_key_is_made_anew() -> None:
    plan = planned({"main-encryption": secret("main-encryption", k1=KEY)}, stored=True)
    assert [one["metadata"]["name"] for one in plan.create] == ["main-signing"]
    assert plan.condition.holds


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAA==\n"])
def test_a_signing_key_of_another_shape_is_a_condition(pem: bytes) -> None:
    secrets = {
        "main-encryption": secret("main-encryption", k1=KEY),
        "main-signing": secret("main-signing", signing_pem=pem),
    }
    assert planned(secrets).condition.reason == "KeyInvalid"


def test_signing_keys_turn_over_without_a_token_that_nobody_can_verify() -> None:
    """For nine months: what signs was announced a day before, and stays a day after."""
    encryption = secret("main-encryption", k1=KEY)
    first = planned({"main-encryption": encryption}).create[-1]
    held: dict[str, Any] = {"main-encryption": encryption, "main-signing": dict(first)}
    now = NOW
    signers: list[str] = []
    published: dict[str, datetime] = {}
    signed_last: dict[str, datetime] = {}
    while now < NOW + timedelta(hours=2160 * 3):
        plan = planned(held, now=now, stored=True)
        for update in plan.update:
            held["main-signing"] = dict(update)
        assert plan.condition.holds
        entries = plan.signing.entries()
        signer = entries[0]["file"]
        assert set(entries[0]) == {"file"}
        for one in entries:
            published.setdefault(one["file"], now)
        if signer not in signers:
            assert not signers or now - published[signer] >= timedelta(hours=24)
            signers.append(signer)
        signed_last[signer] = now
        present = {one["file"] for one in entries}
        for file, last in signed_last.items():
            if now - last < timedelta(hours=24):
                assert file in present
        for one in entries[1:]:
            assert one.get("announced") or one["retiredAt"] <= now.strftime("%Y-%m-%dT%H:%M:%SZ")
        now += timedelta(hours=6)
    assert len(signers) == 3
    assert len(rotation.decoded(held["main-signing"])) <= 2


def test_named_signing_keys_are_used_as_they_are() -> None:
    pem = authority.key_pem(new_key())
    held = {
        "main-encryption": secret("main-encryption", k1=KEY),
        "mine": secret("mine", a_pem=pem, b_pem=authority.key_pem(new_key())),
    }
    plan = planned(held, signingSecretRef={"name": "mine"}, now=NOW + timedelta(days=999))
    assert plan.signing.entries() == [{"file": "b.pem"}, {"file": "a.pem"}]
    assert plan.update == ()
    assert planned(held, signingSecretRef={"name": "gone"}).condition.reason == "KeyMissing"
