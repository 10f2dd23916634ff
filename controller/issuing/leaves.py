"""Leaf certificates in Secrets: whether one is good, when it is renewed, and a new one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from chassis.spiffe_id import Workload
from controller.issuing import authority
from controller.issuing.authority import Authority, Issued, KeyMaker

# Of the time until renewal: many certificates made at once are not renewed at once.
_JITTER: Final = 0.1


@dataclass(frozen=True)
class Template:
    """What a leaf has to be: its names, its role, its lifetime, and when it is renewed."""

    names: tuple[x509.GeneralName, ...]
    role: x509.ObjectIdentifier
    lifetime: timedelta
    renew_before: timedelta


def workload_template(
    workload: Workload, trust_domain: str, lifetime: timedelta, renew_before: timedelta
) -> Template:
    """An X.509-SVID: one URI name, for a client."""
    name = x509.UniformResourceIdentifier(workload.spiffe_id(trust_domain))
    return Template((name,), ExtendedKeyUsageOID.CLIENT_AUTH, lifetime, renew_before)


def server_template(hosts: Sequence[str], lifetime: timedelta, renew_before: timedelta) -> Template:
    """A serving certificate for these host names."""
    names = tuple(x509.DNSName(host) for host in hosts)
    return Template(names, ExtendedKeyUsageOID.SERVER_AUTH, lifetime, renew_before)


@dataclass(frozen=True, repr=False)
class Credential:
    """Certificate chain and key in PEM, as a Secret of type kubernetes.io/tls holds them."""

    chain_pem: bytes
    key_pem: bytes
    leaf: x509.Certificate

    @property
    def ends(self) -> datetime:
        return self.leaf.not_valid_after_utc

    @property
    def serial(self) -> str:
        return f"{self.leaf.serial_number:X}"


def read(data: Mapping[str, bytes]) -> Credential | None:
    """The credential in a Secret; None where certificate or key is missing or they do not fit."""
    chain, key = data.get("tls.crt", b""), data.get("tls.key", b"")
    parsed = authority.certificates(chain)
    if not parsed or not authority.key_fits(parsed[0], key):
        return None
    return Credential(chain, key, parsed[0])


def is_good(
    credential: Credential | None,
    template: Template,
    signer: Authority,
    jitter_of: str,
    now: datetime,
) -> bool:
    """Whether the credential may stay: signed by the authority in use, as asked for, not due."""
    if credential is None:
        return False
    leaf = credential.leaf
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        roles = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return (
        list(names) == list(template.names)
        and template.role in roles
        and leaf.not_valid_after_utc - leaf.not_valid_before_utc <= template.lifetime
        and authority.signed_by(leaf, signer.certificate)
        and leaf.not_valid_before_utc <= now < renewal(credential, template, jitter_of)
    )


def problem_of(
    credential: Credential | None, template: Template, trusted: bytes, now: datetime
) -> str | None:
    """What is wrong with a credential that somebody else issued; None where it is as asked for.

    `trusted` are the authorities that its peers know, in PEM. They check it again themselves.
    """
    if credential is None:
        return "cannot be read, or the key beside it is of another one"
    try:
        extensions = credential.leaf.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        roles = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return "does not say whose it is and what it is for"
    wanted = [str(one.value) for one in template.names]
    if sorted(str(one.value) for one in names) != sorted(wanted):
        return f"has other names than {', '.join(wanted)}"
    if template.role not in roles:
        return f"is not for {authority.ROLES[template.role]}"
    if not credential.leaf.not_valid_before_utc <= now < credential.ends:
        return "is not valid now"
    if not authority.leads_to(credential.chain_pem, trusted):
        return "is of an authority that its peers do not know"
    return None


def renewal(credential: Credential, template: Template, jitter_of: str) -> datetime:
    """When the credential is renewed: some minutes earlier for some, by the hash of `jitter_of`.

    Where the leaf is shorter than asked for, because its authority ends, the same share counts.
    """
    leaf = credential.leaf
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    share = 1 - template.renew_before / template.lifetime
    digest = hashlib.sha256(f"{jitter_of} {credential.serial}".encode()).digest()
    earlier = _JITTER * int.from_bytes(digest[:4], "big") / 2**32
    return leaf.not_valid_before_utc + lifetime * share * (1 - earlier)


def go_duration(time: timedelta) -> str:
    """As cert-manager and the API server write it."""
    seconds = int(time.total_seconds())
    return f"{seconds // 3600}h{seconds % 3600 // 60}m{seconds % 60}s"


def issue(
    template: Template, signer: Authority, now: datetime, new_key: KeyMaker
) -> tuple[Credential, Issued]:
    """A new credential. Raises InvalidAuthority."""
    key = new_key()
    issued = signer.issue(
        key.public_key(), template.names, template.role, now=now, lifetime=template.lifetime
    )
    return Credential(issued.chain_pem, authority.key_pem(key), issued.leaf), issued
