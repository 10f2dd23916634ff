"""The map from resource to workload: which server owns which URL, and its upstreams."""

from typing import Annotated

from pydantic import Field, field_validator

from authserver.config.value_types import UpstreamName
from authserver.oauth.resources import InvalidResource, Resource, canonical
from chassis.config_types import Model, Scope
from chassis.spiffe_id import Workload, is_dns_label


class WorkloadName(Model):
    namespace: str
    name: str

    @field_validator("namespace", "name")
    @classmethod
    def _label(cls, text: str) -> str:
        if not is_dns_label(text):
            raise ValueError("must be a DNS-1123 label")
        return text

    def workload(self) -> Workload:
        return Workload(self.namespace, self.name)


class ResourceSettings(Model):
    resource: str
    workload: WorkloadName
    upstreams: Annotated[tuple[UpstreamName, ...], Field(min_length=1)]
    scopes: tuple[Scope, ...] = ()

    @field_validator("resource")
    @classmethod
    def _is_a_resource(cls, resource: str) -> str:
        try:
            canonical(resource)
        except InvalidResource as error:
            raise ValueError(str(error)) from None
        return resource

    def entry(self) -> Resource:
        """As it stands in the map."""
        return Resource(self.resource, self.workload.workload(), self.upstreams, self.scopes)
