"""The authserver's own keys: made once, kept, rotated without a refused token.

An encryption key that is gone is never replaced silently: what it sealed would be lost, and nobody
would learn why. The signing key that is in use is announced in the JWKS before it signs, and stays
there until the last token of it has ended.
"""

import itertools
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from controller.api.auth_server import AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.objects import Object, format_time, path
from controller.api.v1alpha1 import duration
from controller.issuing import authority, rotation
from controller.reconcile.plan import Makers, kept, labels

FIRST_KEY: Final = "k1"
_KEY_BYTES: Final = 32
_PREFIX: Final = "signing-"
_TIMESTAMP: Final = "%Y%m%d%H%M%S"

# Clients and resource servers keep a JWKS for up to a day.
ANNOUNCEMENT: Final = timedelta(hours=24)
# The longest life of an access token (lifetimes.accessToken), and an hour.
_AFTERLIFE: Final = timedelta(hours=25)
_DEFAULT_ROTATION: Final = timedelta(hours=2160)


@dataclass(frozen=True)
class EncryptionKeys:
    """The ids of the keys, which are the Secret's members. The last id seals."""

    secret: str
    ids: tuple[str, ...] = ()

    @property
    def sealing_first(self) -> tuple[str, ...]:
        return tuple(sorted(self.ids, reverse=True))


@dataclass(frozen=True)
class SigningKey:
    """A file of the Secret; `retired_at` is when its successor began to sign."""

    file: str
    announced: bool = False
    retired_at: datetime | None = None


@dataclass(frozen=True)
class SigningKeys:
    """The keys, the one that signs first."""

    secret: str
    keys: tuple[SigningKey, ...] = ()

    def entries(self) -> list[dict[str, Any]]:
        """As the configuration file's `signingKeys`; `file` is the member's name."""
        made = []
        for one in self.keys:
            entry: dict[str, Any] = {"file": one.file}
            if one.announced:
                entry["announced"] = True
            if one.retired_at is not None:
                entry["retiredAt"] = format_time(one.retired_at)
            made.append(entry)
        return made


@dataclass(frozen=True)
class KeyPlan:
    """The keys that there are, the Secrets to create or to update, and the condition KeysReady."""

    encryption: EncryptionKeys
    signing: SigningKeys
    condition: Condition
    create: tuple[Object, ...] = ()
    update: tuple[Object, ...] = ()
    again_at: datetime | None = None

    @property
    def usable(self) -> bool:
        return bool(self.encryption.ids and self.signing.keys)


def plan(
    auth_server: AuthServer,
    secrets: Mapping[str, Object],
    *,
    storage_exists: bool,
    now: datetime,
    makers: Makers,
) -> KeyPlan:
    """What is to be done about the keys.

    `secrets` are those of the namespace by name. `storage_exists`: something may have been sealed.
    """
    encryption, problem, made = _encryption(auth_server, secrets, storage_exists, makers)
    if problem is not None:
        nothing = SigningKeys("")
        return KeyPlan(encryption, nothing, problem)
    signing = _signing(auth_server, secrets, now, makers)
    return replace(signing, encryption=encryption, create=made + signing.create)


def _encryption(
    auth_server: AuthServer,
    secrets: Mapping[str, Object],
    storage_exists: bool,
    makers: Makers,
) -> tuple[EncryptionKeys, Condition | None, tuple[Object, ...]]:
    named = path(auth_server.spec, "keys", "encryptionSecretRef", "name")
    name = str(named or f"{auth_server.name}-encryption")
    secret = secrets.get(name)
    if secret is None:
        if named or storage_exists or auth_server.status.get("keysMade"):
            return EncryptionKeys(name), _missing(name, named is not None), ()
        text = b64encode(makers.encryption_key())
        made = _secret(auth_server, name, {FIRST_KEY: text + b"\n"})
        return EncryptionKeys(name, (FIRST_KEY,)), None, (made,)
    data = rotation.decoded(secret)
    if not data or not all(_is_encryption_key(text) for text in data.values()):
        problem = f"each member of Secret {name} must be 32 random bytes in base64"
        return (
            EncryptionKeys(name),
            Condition("KeysReady", "False", Reason.KEY_INVALID, problem),
            (),
        )
    return EncryptionKeys(name, tuple(sorted(data))), None, ()


def _missing(name: str, named: bool) -> Condition:
    hint = (
        "make it"
        if named
        else "restore it from a backup; without it every sealed token is lost. To begin anew, "
        "delete the storage and this MCPAuthServer"
    )
    return Condition("KeysReady", "False", Reason.KEY_MISSING, f"there is no Secret {name}: {hint}")


def _is_encryption_key(text: bytes) -> bool:
    try:
        return len(b64decode(text.strip(), validate=True)) == _KEY_BYTES
    except (NotBase64, ValueError):
        return False


def _signing(
    auth_server: AuthServer, secrets: Mapping[str, Object], now: datetime, makers: Makers
) -> KeyPlan:
    named = path(auth_server.spec, "keys", "signingSecretRef", "name")
    name = str(named or f"{auth_server.name}-signing")
    secret = secrets.get(name)
    nothing = EncryptionKeys("")
    if secret is None:
        if named:
            return KeyPlan(nothing, SigningKeys(name), _missing(name, named=True))
        # Nothing sealed depends on a signing key: tokens of the old one end within minutes.
        data = {_file(now): authority.key_pem(makers.private_key())}
        made = _secret(auth_server, name, data)
        return KeyPlan(nothing, schedule(name, data, now), _ready(), create=(made,))
    data = rotation.decoded(secret)
    if not data or not all(_is_signing_key(pem) for pem in data.values()):
        problem = f"each member of Secret {name} must be a P-256 key in PEM (PKCS#8)"
        condition = Condition("KeysReady", "False", Reason.KEY_INVALID, problem)
        return KeyPlan(nothing, SigningKeys(name), condition)
    if named:
        first, *others = sorted(data, reverse=True)
        keys = (SigningKey(first), *(SigningKey(one) for one in others))
        return KeyPlan(nothing, SigningKeys(name, keys), _ready())
    return _rotated(auth_server, secret, data, now, makers)


def _rotated(
    auth_server: AuthServer,
    secret: Object,
    data: dict[str, bytes],
    now: datetime,
    makers: Makers,
) -> KeyPlan:
    every = duration(path(auth_server.spec, "keys", "signingRotation"), _DEFAULT_ROTATION)
    wanted = {name: pem for name, pem in data.items() if not _is_over(name, data, now)}
    newest = max(wanted)
    if now >= _made_at(newest) + every:
        wanted[_file(now)] = authority.key_pem(makers.private_key())
    keys = schedule(f"{auth_server.name}-signing", wanted, now)
    again = min(_changes(wanted, every, now), default=None)
    if wanted == data:
        return KeyPlan(EncryptionKeys(""), keys, _ready(), again_at=again)
    changed = {**secret, "data": rotation.encoded(wanted)}
    return KeyPlan(EncryptionKeys(""), keys, _ready(), update=(changed,), again_at=again)


def schedule(secret: str, data: Mapping[str, bytes], now: datetime) -> SigningKeys:
    """Which key signs, which is announced, and since when the others are retired.

    A key signs from ANNOUNCEMENT after it was made; the first of all signs at once.
    """
    files = sorted(data)
    ripe = [one for one in files if _made_at(one) + ANNOUNCEMENT <= now] or files[:1]
    signing = ripe[-1]
    announced = tuple(SigningKey(one, announced=True) for one in files if one > signing)
    retired = tuple(
        SigningKey(one, retired_at=_made_at(successor) + ANNOUNCEMENT)
        for one, successor in itertools.pairwise(ripe)
    )
    return SigningKeys(secret, (SigningKey(signing), *announced, *reversed(retired)))


def _is_over(name: str, data: Mapping[str, bytes], now: datetime) -> bool:
    successors = [one for one in sorted(data) if one > name]
    return bool(successors) and now >= _made_at(successors[0]) + ANNOUNCEMENT + _AFTERLIFE


def _changes(data: Mapping[str, bytes], every: timedelta, now: datetime) -> list[datetime]:
    times = [_made_at(max(data)) + every]
    for name in data:
        times += [_made_at(name) + ANNOUNCEMENT, _made_at(name) + ANNOUNCEMENT + _AFTERLIFE]
    return [one for one in times if one > now]


def _file(now: datetime) -> str:
    return f"{_PREFIX}{now.astimezone(UTC).strftime(_TIMESTAMP)}.pem"


def _made_at(file: str) -> datetime:
    """From the member's name; a name of another form counts as old."""
    text = file.removeprefix(_PREFIX).removesuffix(".pem")
    try:
        return datetime.strptime(text, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _is_signing_key(pem: bytes) -> bool:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        return False
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)


def _secret(auth_server: AuthServer, name: str, data: Mapping[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": auth_server.namespace,
            "labels": labels(auth_server.name),
            "annotations": kept("Secret", name),
        },
        "data": rotation.encoded(data),
    }


def _ready() -> Condition:
    return Condition("KeysReady", "True", Reason.KEYS_READY, "")
