"""The operator's map: which workload owns which resource, and what it may obtain.

A client's spelling of a resource is folded only at the edges (authorize, token); what we store,
issue and compare inside is the configured spelling, byte for byte.
"""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec.structs import replace

from authserver.oauth.parsing import SEPARATOR
from authserver.values import Value
from chassis.resource_url import InvalidResource as InvalidResource
from chassis.resource_url import canonical as canonical
from chassis.resource_url import collision_key as collision_key
from chassis.spiffe_id import Workload

# How the tokens of a resource may be used: handed to its code, or put into calls by the sidecar.
Release = Literal["HandOut", "Attach"]
HAND_OUT: Final = "HandOut"
ATTACH: Final = "Attach"


class Resource(Value, frozen=True):
    """A configured resource, its only owner, and the upstreams in sign-in order.

    `release`: how its tokens may be used. `when_needed`: upstreams that no sign-in asks for.
    `owned_since`: what is older, in seconds since the Unix epoch, was another owner's of that name.
    `required_scopes`: without all of them its server answers no call. `exchanged`: upstreams whose
    tokens are made of another one's here; nobody signs in at them.
    `owner_uid`: which object of the owner's name it is; empty for an owner of a hand-written map.
    `adopts`: the UID whose sessions and connections pass to this owner, None where none do.
    `adopted`: they have passed.
    """

    url: str
    owner: Workload
    upstreams: tuple[str, ...]
    scopes: tuple[str, ...]
    release: tuple[Release, ...] = (HAND_OUT, ATTACH)
    when_needed: frozenset[str] = frozenset()
    owned_since: float | None = None
    required_scopes: tuple[str, ...] = ()
    exchanged: frozenset[str] = frozenset()
    owner_uid: str = ""
    adopts: str | None = None
    adopted: bool = False

    @property
    def owner_uids(self) -> tuple[str, str]:
        """The UIDs of which a session is this owner's; twice the same where nothing is adopted."""
        return self.owner_uid, self.owner_uid if self.adopts is None else self.adopts

    @property
    def recorded_uid(self) -> str:
        """The UID that a new session is stored with.

        The old one until the adoption is over: a replica with the map of before knows no other.
        """
        return self.owner_uid if self.adopts is None or self.adopted else self.adopts

    @property
    def at_sign_in(self) -> tuple[str, ...]:
        """The upstreams that a sign-in asks for; the first names the user."""
        left_out = self.when_needed | self.exchanged
        return tuple(name for name in self.upstreams if name not in left_out)


class ResourceMap:
    """All configured resources. Raises ValueError where two spell the same resource."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._exact: dict[str, Resource] = {}
        self.replace(resources)

    def replace(self, resources: Iterable[Resource]) -> None:
        """Put another map in force, whole."""
        before, exact = self._exact, dict[str, Resource]()
        folded: dict[str, Resource] = {}
        seen: set[str] = set()
        for resource in resources:
            if collision_key(resource.url) in seen:
                raise ValueError(f"{resource.url}: the same resource stands here twice")
            seen.add(collision_key(resource.url))
            exact[resource.url] = resource
            folded[canonical(resource.url)] = resource
        self._exact, self._canonical = exact, folded
        for known in before.values():
            if known.adopted:
                self.finish_adoption(known)

    def finish_adoption(self, resource: Resource) -> None:
        """What `resource` adopts has passed to its owner, if the map has it as it was."""
        adopted = replace(resource, adopted=True)
        for known in (self._exact, self._canonical):
            for url, one in known.items():
                if replace(one, adopted=True) == adopted:
                    known[url] = adopted

    def resolve(self, text: str) -> Resource | None:
        """What a client means by `text`, in any spelling; for the edges only.

        A client may send several URIs, which `query_fields` joins (RFC 8707 section 2).
        They count where all of them mean the same resource: a token is for one.
        """
        try:
            meant = {canonical(one) for one in text.split(SEPARATOR)}
        except InvalidResource:
            return None
        return self._canonical.get(meant.pop()) if len(meant) == 1 else None

    def get(self, url: str) -> Resource | None:
        """The resource of exactly this configured spelling."""
        return self._exact.get(url)

    def owned(self) -> set[tuple[str, Workload]]:
        """Every resource and its owner."""
        return {(resource.url, resource.owner) for resource in self._exact.values()}

    def renewed(self) -> set[Resource]:
        """Resources whose owner may have had a namesake: an object of its name, deleted since."""
        return {one for one in self._exact.values() if one.owner_uid or one.owned_since is not None}

    def adopting(self) -> set[Resource]:
        """Resources whose owner takes over what another of its name has left."""
        return {one for one in self._exact.values() if one.adopts is not None and not one.adopted}

    def identifying(self) -> list[str]:
        """The upstreams that name the users of some resource."""
        return sorted({resource.upstreams[0] for resource in self._exact.values()})

    def scopes(self) -> list[str]:
        return sorted({scope for resource in self._exact.values() for scope in resource.scopes})
