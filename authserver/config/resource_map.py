"""The map from resource to workload: which server owns which URL, and its upstreams."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from authserver.config.value_types import UpstreamName
from authserver.oauth.resources import (
    ATTACH,
    HAND_OUT,
    InvalidResource,
    Release,
    Resource,
    canonical,
)
from chassis.config_types import Model, Scope
from chassis.spiffe_id import Workload, is_dns_label


class WorkloadName(Model):
    """`uid` and `notBefore` are the controller's: which object of this name it is, and since when.

    A certificate that began before `notBefore` is of a namesake that was deleted. `adopts` is the
    UID of an object whose sessions pass to this one; "" for the owner in a hand-written map.
    """

    namespace: str
    name: str
    uid: Annotated[str, Field(max_length=64)] = ""
    not_before: AwareDatetime | None = None
    adopts: Annotated[str, Field(max_length=64)] | None = None

    @field_validator("namespace", "name")
    @classmethod
    def _label(cls, text: str) -> str:
        if not is_dns_label(text):
            raise ValueError("must be a DNS-1123 label")
        return text

    def workload(self) -> Workload:
        return Workload(self.namespace, self.name)


class PermittedUpstream(Model):
    """An upstream that a resource may obtain, written as its name alone or with more.

    `WhenNeeded`: a sign-in does not ask for it; the user connects it by a link when it is needed.
    """

    name: UpstreamName
    connect: Literal["AtSignIn", "WhenNeeded"] = "AtSignIn"

    @model_validator(mode="before")
    @classmethod
    def _by_its_name(cls, written: Any) -> Any:
        return {"name": written} if isinstance(written, str) else written


class ResourceSettings(Model):
    resource: str
    workload: WorkloadName
    upstreams: Annotated[tuple[PermittedUpstream, ...], Field(min_length=1)]
    scopes: tuple[Scope, ...] = ()
    required_scopes: tuple[Scope, ...] = ()
    release: Annotated[tuple[Release, ...], Field(min_length=1)] = (HAND_OUT, ATTACH)

    @field_validator("upstreams")
    @classmethod
    def _the_first_names_the_user(
        cls, upstreams: tuple[PermittedUpstream, ...]
    ) -> tuple[PermittedUpstream, ...]:
        if upstreams[0].connect == "WhenNeeded":
            raise ValueError("the first upstream names the user: it cannot be WhenNeeded")
        _check_once([upstream.name for upstream in upstreams])
        return upstreams

    @field_validator("release")
    @classmethod
    def _once_each(cls, release: tuple[Release, ...]) -> tuple[Release, ...]:
        _check_once(list(release))
        return release

    @field_validator("resource")
    @classmethod
    def _is_a_resource(cls, resource: str) -> str:
        try:
            canonical(resource)
        except InvalidResource as error:
            raise ValueError(str(error)) from None
        return resource

    @model_validator(mode="after")
    def _requires_what_it_has(self) -> "ResourceSettings":
        if missing := sorted(set(self.required_scopes) - set(self.scopes)):
            raise ValueError(f"requiredScopes: {', '.join(missing)} is not in scopes")
        return self

    def entry(self) -> Resource:
        """As it stands in the map."""
        since = self.workload.not_before
        return Resource(
            self.resource,
            self.workload.workload(),
            tuple(upstream.name for upstream in self.upstreams),
            self.scopes,
            release=self.release,
            when_needed=frozenset(
                upstream.name for upstream in self.upstreams if upstream.connect == "WhenNeeded"
            ),
            owned_since=since.timestamp() if since is not None else None,
            required_scopes=self.required_scopes,
            owner_uid=self.workload.uid,
            adopts=self.workload.adopts if self.workload.adopts != self.workload.uid else None,
        )


def _check_once(names: list[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{', '.join(twice)}: stands here twice")
